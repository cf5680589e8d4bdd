#include "results.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

namespace avsbg_run {

double rounded(double value, double digits) { return std::nearbyint(value * digits) / digits; }

ResultWriter::ResultWriter(const std::string& directory, const VideoInfo& video, std::vector<std::string> labels,
                           const Options& options, bool by_place)
    : directory_(directory), video_(video), labels_(std::move(labels)), options_(options), by_place_(by_place),
      lines_(directory + "/frames.jsonl") {
  if (options.masks == "png") std::filesystem::create_directory(directory + "/masks");
  if (options.masks == "video" && !options.interpolate) {  // else all frames' masks are written with the overlay
    mask_video_.emplace(directory + "/masks.mkv", video.width, video.height);
  }
  if (options.probabilities) std::filesystem::create_directory(directory + "/probabilities");
  if (options.rle) coco_.emplace(directory, video.path, labels_);
}

std::vector<std::uint8_t> ResultWriter::write(const Segmented& one) {
  const std::vector<std::uint8_t> mask = one.mask.decide(video_.width, video_.height, options_.threshold);
  ++record.masks;
  if (options_.rate == "auto" && one.place.phase != 0) return mask;  // for the overlay alone
  const avsbg_mask_view& view = one.mask.view();
  const std::size_t pixels = static_cast<std::size_t>(view.height) * static_cast<std::size_t>(view.width);
  // Names, times and numbers of what is written do not depend on the rate that the machine reaches.
  const std::int64_t number = by_place_ ? one.number : one.place.second;
  char name[64];
  if (by_place_) {
    std::snprintf(name, sizeof name, "/%06lld_%.3fs.png", static_cast<long long>(number), one.time.value());
  } else {
    std::snprintf(name, sizeof name, "/%05lld.png", static_cast<long long>(number));
  }
  if (options_.masks == "png") {
    write_png(directory_ + "/masks" + name, mask, video_.width, video_.height, labels_.empty() ? Colours::kGrey : Colours::kClasses);
  }
  if (mask_video_) mask_video_->add(by_place_ ? one.time : Fraction(number), mask);
  const double time = rounded(one.time.value(), 1e6);
  if (coco_) {
    std::vector<std::uint8_t> numbers = mask;
    if (labels_.empty()) std::replace(numbers.begin(), numbers.end(), std::uint8_t{255}, std::uint8_t{1});
    coco_->add(number, one.place.second, time, numbers, video_.width, video_.height);
  }
  if (options_.probabilities) {
    std::vector<std::uint8_t> grey(pixels);
    for (std::size_t i = 0; i < pixels; ++i) grey[i] = static_cast<std::uint8_t>(std::nearbyint(view.probability[i] * 255.0F));
    write_png(directory_ + "/probabilities" + name, grey, view.width, view.height, Colours::kGrey);
  }
  std::vector<std::int64_t> counts(256);
  for (const std::uint8_t each : mask) ++counts[each];
  const auto size = static_cast<double>(mask.size());
  const double area = static_cast<double>(static_cast<std::int64_t>(mask.size()) - counts[0]) / size;
  const float highest = *std::max_element(view.probability, view.probability + pixels);
  Json line = {{"second", one.place.second}, {"time", time}, {"mask_area", area}, {"highest_probability", static_cast<double>(highest)}};
  if (!labels_.empty()) {
    line["class_areas"] = Json::object();
    for (std::size_t i = 0; i < labels_.size(); ++i) {
      if (counts[i] > 0) line["class_areas"][labels_[i]] = static_cast<double>(counts[i]) / size;
    }
  }
  lines_ << line.dump() << '\n';
  ++record.areas;
  record.area += area;
  if (one.place.phase == 0) {
    ++record.seconds;
    record.sounding += area > 0;
  }
  return mask;
}

void ResultWriter::finish() {
  if (coco_) coco_->finish();
  if (mask_video_) mask_video_->finish();
  lines_.close();
  if (!lines_) throw MediaError("the output " + directory_ + " cannot be written.", "Make room.");
}

}  // namespace avsbg_run
