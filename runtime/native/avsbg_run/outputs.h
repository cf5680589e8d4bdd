// Files of a run: masks, run lengths, the line of each second, and the directory that appears when all is complete.
#pragma once

#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "media.h"

namespace avsbg_run {

using Json = nlohmann::json;

// Throws MediaError where `path` may not be made: something is there that is no earlier run's, or is not to be replaced.
void check_output(const std::string& path, bool replace);

// A directory that becomes `path` when it is published; what is not published is removed.
class OutputDirectory {
 public:
  OutputDirectory(const std::string& path, bool replace);
  ~OutputDirectory();
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  const std::string& path() const { return fresh_; }
  void publish();

 private:
  std::string target_, folder_, fresh_;
  int lock_ = -1;
};

// The meaning of an image's bytes.
enum class Colours { kGrey, kClasses, kRgb };

// Writes a PNG of 8 bits: grey, numbers of classes, which a palette colours, or RGB.
void write_png(const std::string& path, const std::vector<std::uint8_t>& pixels, int width, int height, Colours colours);

// The 256 colours of classes, RGB: those of PASCAL VOC.
const std::vector<std::uint8_t>& class_colours();

// masks.coco.json; what waits to be written lies on disk.
class CocoWriter {
 public:
  CocoWriter(const std::string& directory, const std::string& video, std::vector<std::string> labels);
  // A mask in the video's size: 1 where it sounds, or numbers of classes.
  void add(std::int64_t number, std::int64_t second, double time, const std::vector<std::uint8_t>& mask, int width, int height);
  void finish();

 private:
  std::string directory_, video_;
  std::vector<std::string> labels_;
  std::ofstream images_, annotations_;
  std::int64_t image_count_ = 0, annotation_count_ = 0;
};

// Writes a file whole; an error where the disk is full.
void write_text(const std::string& path, const std::string& text);

// JSON as Python's json.dumps writes it, keys sorted.
std::string dump_sorted(const Json& value);

}  // namespace avsbg_run
