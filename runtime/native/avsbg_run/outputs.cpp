#include "outputs.h"

#include <fcntl.h>
#include <png.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <random>

namespace avsbg_run {
namespace fs = std::filesystem;
namespace {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

[[noreturn]] void fail(const std::string& path, const std::string& reason) {
  throw MediaError("the output " + path + " cannot be written: " + reason + "; nothing of it was kept.",
                   "Make room, or choose a directory elsewhere with -o.");
}

}  // namespace

void check_output(const std::string& path, bool replace) {
  if (fs::exists(path) && !replace) {
    throw MediaError(path + " exists already.", "Choose another directory, or replace it with --overwrite.");
  }
  if (fs::exists(path) && !fs::exists(path + "/summary.json")) {
    throw MediaError(path + " exists and holds no earlier run, so it is not replaced.", "Choose another path.");
  }
}

OutputDirectory::OutputDirectory(const std::string& path, bool replace) {
  check_output(path, replace);
  fs::path target = fs::absolute(path).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // of a path that ends with a slash
  target_ = target.string();
  const fs::path parent = target.parent_path();
  const std::string name = target.filename().string();
  std::random_device chance;
  std::error_code problem;
  fs::create_directories(parent, problem);
  for (int attempt = 0; attempt < 100 && folder_.empty(); ++attempt) {
    std::string suffix;
    for (int i = 0; i < 8; ++i) suffix += "abcdefghijklmnopqrstuvwxyz0123456789_"[chance() % 37];
    const fs::path folder = parent / ("." + name + "." + suffix + ".partial");
    if (fs::create_directory(folder, problem)) folder_ = folder.string();
  }
  if (folder_.empty()) fail(path, problem.message());
  // By the lock, `avsbg run` knows that this is in use.
  lock_ = ::open((folder_ + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ >= 0) flock(lock_, LOCK_EX | LOCK_NB);
  fresh_ = folder_ + "/new";
  if (!fs::create_directory(fresh_, problem)) fail(path, problem.message());
}

OutputDirectory::~OutputDirectory() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
  if (lock_ >= 0) ::close(lock_);
}

void OutputDirectory::publish() {
  std::error_code problem;
  if (fs::exists(target_)) fs::rename(target_, folder_ + "/old", problem);
  if (!problem) fs::rename(fresh_, target_, problem);
  if (problem) {
    std::error_code ignored;
    if (fs::exists(folder_ + "/old")) fs::rename(folder_ + "/old", target_, ignored);
    fail(target_, problem.message());
  }
}

const std::vector<std::uint8_t>& class_colours() {
  static const std::vector<std::uint8_t> colours = [] {
    std::vector<std::uint8_t> made(256 * 3);
    for (int number = 0; number < 256; ++number) {
      for (int place = 0; place < 3; ++place) {
        for (int channel = 0; channel < 3; ++channel) {
          made[static_cast<std::size_t>(3 * number + channel)] |=
              static_cast<std::uint8_t>((number >> (3 * place + channel) & 1) << (7 - place));
        }
      }
    }
    return made;
  }();
  return colours;
}

void write_png(const std::string& path, const std::vector<std::uint8_t>& pixels, int width, int height, Colours colours) {
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "wb"));
  if (!file) fail(path, std::strerror(errno));
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png == nullptr ? nullptr : png_create_info_struct(png);
  if (info == nullptr) throw std::bad_alloc();
  if (setjmp(png_jmpbuf(png)) != 0) {
    png_destroy_write_struct(&png, &info);
    fail(path, std::strerror(errno));
  }
  png_init_io(png, file.get());
  png_set_compression_level(png, 1);
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), 8,
               colours == Colours::kGrey      ? PNG_COLOR_TYPE_GRAY
               : colours == Colours::kClasses ? PNG_COLOR_TYPE_PALETTE
                                              : PNG_COLOR_TYPE_RGB,
               PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (colours == Colours::kClasses) png_set_PLTE(png, info, reinterpret_cast<png_const_colorp>(class_colours().data()), 256);
  png_write_info(png, info);
  const std::size_t row = static_cast<std::size_t>(width) * (colours == Colours::kRgb ? 3 : 1);
  for (int y = 0; y < height; ++y) png_write_row(png, pixels.data() + static_cast<std::size_t>(y) * row);
  png_write_end(png, nullptr);
  png_destroy_write_struct(&png, &info);
  if (std::fflush(file.get()) != 0) fail(path, std::strerror(errno));
}

CocoWriter::CocoWriter(const std::string& directory, const std::string& video, std::vector<std::string> labels)
    : directory_(directory), video_(fs::path(video).filename().string()), labels_(std::move(labels)),
      images_(directory + "/.masks.coco.json.images"), annotations_(directory + "/.masks.coco.json.annotations") {}

void CocoWriter::add(std::int64_t number, std::int64_t second, double time, const std::vector<std::uint8_t>& mask, int width, int height) {
  const Json image = {{"id", number}, {"file_name", video_}, {"height", height},
                      {"width", width}, {"second", second}, {"time", time}};
  images_ << (image_count_++ ? ",\n" : "") << image.dump();
  std::vector<bool> present(256);
  for (const std::uint8_t one : mask) present[one] = true;
  for (int value = 1; value < 256; ++value) {
    if (!present[static_cast<std::size_t>(value)]) continue;
    // Column by column, runs of 0, 1, 0, ... in turn.
    std::vector<std::int64_t> counts = {0};
    std::int64_t area = 0;
    int left = width, right = -1, top = height, bottom = -1;
    bool inside = false;
    for (int x = 0; x < width; ++x) {
      for (int y = 0; y < height; ++y) {
        const bool is = mask[static_cast<std::size_t>(y) * static_cast<std::size_t>(width) + static_cast<std::size_t>(x)] == value;
        if (is != inside) counts.push_back(0);
        inside = is;
        ++counts.back();
        if (!is) continue;
        ++area;
        left = std::min(left, x);
        right = std::max(right, x);
        top = std::min(top, y);
        bottom = std::max(bottom, y);
      }
    }
    const Json annotation = {{"id", ++annotation_count_},
                             {"image_id", number},
                             {"category_id", labels_.empty() ? 1 : value},
                             {"iscrowd", 0},
                             {"area", area},
                             {"bbox", {left, top, right - left + 1, bottom - top + 1}},
                             {"segmentation", {{"size", {height, width}}, {"counts", counts}}}};
    annotations_ << (annotation_count_ > 1 ? ",\n" : "") << annotation.dump();
  }
}

void CocoWriter::finish() {
  images_.close();
  annotations_.close();
  if (!images_ || !annotations_) fail(directory_, std::strerror(errno));
  Json categories = Json::array();
  std::vector<std::string> names = labels_.empty() ? std::vector<std::string>{"background", "sounding"} : labels_;
  for (std::size_t i = 1; i < names.size(); ++i) {
    categories.push_back({{"id", i}, {"name", names[i]}, {"supercategory", "sound"}});
  }
  std::ofstream target(directory_ + "/masks.coco.json");
  target << R"({"info": {"description": "what sounds, by avsbg"}, "licenses": [], "categories": )" << categories.dump() << ",\n";
  for (const char* const part : {"images", "annotations"}) {
    const std::string from = directory_ + "/.masks.coco.json." + part;
    target << '"' << part << "\": [\n";
    std::ifstream source(from);
    if (!source) fail(from, std::strerror(errno));
    if (source.peek() != std::ifstream::traits_type::eof()) target << source.rdbuf();
    target << "\n]" << (std::string(part) == "images" ? ",\n" : "}\n");
    fs::remove(from);
  }
  target.close();
  if (!target) fail(directory_, std::strerror(errno));
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  if (!file) fail(path, std::strerror(errno));
}

std::string dump_sorted(const Json& value) {
  std::string text;
  const auto append = [&](const std::string& one) { text += (text.size() > 1 ? ", " : "") + one; };
  if (value.is_object()) {
    text = "{";
    for (const auto& [key, each] : value.items()) append(Json(key).dump(-1, ' ', true) + ": " + dump_sorted(each));
    return text + "}";
  }
  if (value.is_array()) {
    text = "[";
    for (const Json& each : value) append(dump_sorted(each));
    return text + "]";
  }
  return value.dump(-1, ' ', true);
}

}  // namespace avsbg_run
