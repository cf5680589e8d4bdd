#include "segmenter.h"

#include <optional>

namespace avsbg_run {
namespace {

// Seconds: frames further apart than this are not neighbours.
constexpr std::int64_t kMaxGap = 2;

avsbg_frame frame_of(const Sample& sample) {
  return avsbg::frame(sample.picture->pixels.data(), sample.picture->width, sample.picture->height);
}

}  // namespace

PicturePtr resize_picture(const avsbg::Model& model, const Picture& picture) {
  const avsbg_model_info& info = model.info();
  auto resized = std::make_shared<Picture>(Picture{info.width, info.height, {}});
  resized->pixels = model.resize(avsbg::frame(picture.pixels.data(), picture.width, picture.height));
  return resized;
}

// A phase is a source of its own, whose samples are numbered by its seconds.
class Segmenter::Phase {
 public:
  Phase(const avsbg::Model& model, const SegmenterOptions& options) : model_(model), by_clips_(options.by_clips) {
    if (!options.stream) return;
    avsbg_stream_options of_stream = avsbg::init<avsbg_stream_options>();
    of_stream.published_spacing = !options.live;
    stream_.emplace(model, of_stream);
  }

  std::vector<Segmented> push(Sample sample) {
    if (!stream_) {
      waiting_.push_back(std::move(sample));
      return waiting_.size() == static_cast<std::size_t>(model_.info().frames) ? run_clip() : std::vector<Segmented>();
    }
    const std::int64_t second = sample.place.second, clip = model_.info().frames;
    if (by_clips_ && last_ >= 0 && second / clip != last_ / clip) stream_->cut();
    last_ = second;
    const auto begin = static_cast<double>(second);
    if (model_.info().takes_waveform) stream_->push_sound(sample.sound.data(), sample.sound.size(), begin);
    stream_->push(frame_of(sample), begin + model_.info().frame_offset);
    sample.sound.clear();
    waiting_.push_back(std::move(sample));
    return paired(stream_->poll());
  }

  std::vector<Segmented> finish() {
    if (!stream_) return waiting_.empty() ? std::vector<Segmented>() : run_clip();
    stream_->cut();
    return paired(stream_->poll());
  }

 private:
  std::vector<Segmented> run_clip() {
    std::vector<avsbg_frame> frames;
    std::vector<float> sound;
    for (const Sample& sample : waiting_) {
      frames.push_back(frame_of(sample));
      sound.insert(sound.end(), sample.sound.begin(), sample.sound.end());
    }
    return paired(model_.run_clip(frames, sound));
  }

  std::vector<Segmented> paired(std::vector<avsbg::Mask> masks) {
    std::vector<Segmented> results;
    for (avsbg::Mask& mask : masks) {
      Sample& sample = waiting_.front();
      results.push_back({sample.number, sample.place, sample.time, std::move(sample.picture), std::move(mask)});
      waiting_.pop_front();
    }
    return results;
  }

  const avsbg::Model& model_;
  const bool by_clips_;
  std::optional<avsbg::Stream> stream_;
  std::deque<Sample> waiting_;  // for their masks
  std::int64_t last_ = -1;      // second
};

Segmenter::Segmenter(const avsbg::Model& model, const SegmenterOptions& options) : model_(model), options_(options) {
  phases_[0] = std::make_unique<Phase>(model, options);
}

Segmenter::~Segmenter() = default;

std::vector<Segmented> Segmenter::push(Sample sample) {
  const Place place = sample.place;
  if (options_.interleaved) {
    // The masks of others do not wait for a phase of which nothing comes any more, as where a live source's rate fell.
    for (auto each = newest_.begin(); each != newest_.end();) {
      if (place.second - each->second > kMaxGap) {
        keep(phases_.at(each->first)->finish());
        each = newest_.erase(each);
      } else {
        ++each;
      }
    }
  }
  std::unique_ptr<Phase>& phase = phases_[place.phase];
  if (!phase) phase = std::make_unique<Phase>(model_, options_);
  pushed_.push_back(sample.number);
  newest_[place.phase] = place.second;
  keep(phase->push(std::move(sample)));
  return in_order();
}

std::vector<Segmented> Segmenter::finish() {
  for (auto& [number, phase] : phases_) keep(phase->finish());
  return in_order();
}

void Segmenter::keep(std::vector<Segmented> results) {
  for (Segmented& one : results) {
    const std::int64_t number = one.number;
    done_.emplace(number, std::move(one));
  }
}

std::vector<Segmented> Segmenter::in_order() {
  std::vector<Segmented> results;
  while (!pushed_.empty() && done_.count(pushed_.front()) != 0) {
    const auto found = done_.find(pushed_.front());
    results.push_back(std::move(found->second));
    done_.erase(found);
    pushed_.pop_front();
  }
  return results;
}

}  // namespace avsbg_run
