// Masks shown to people in RGB: the legend of classes, and the page of the seconds at a glance.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "media.h"
#include "segmenter.h"

namespace avsbg_run {

constexpr std::array<std::uint8_t, 3> kTint = {255, 64, 0};

// A panel with the names and colours of a mask's classes, the largest area first; as many as there is room for beside
// the mask, [height][width] of numbers. Width and height are even, and 0 where there are no classes.
Picture make_legend(const std::vector<std::uint8_t>& mask, int width, int height, const std::vector<std::string>& labels);

// Small overlays of a video's seconds on one page; of a long video one in each two, four, eight, ... seconds.
class ContactSheet {
 public:
  ContactSheet(const VideoInfo& video, std::vector<std::string> labels) : video_(video), labels_(std::move(labels)) {}

  // Adds a second's frame with its mask, both in the video's size.
  void add(std::int64_t second, const Picture& frame, const std::vector<std::uint8_t>& mask);
  // Writes the page as PNG.
  void save(const std::string& path) const;

 private:
  const VideoInfo& video_;
  const std::vector<std::string> labels_;
  std::int64_t step_ = 1;  // seconds that share a tile, which is of the first that comes: a live source may drop any
  std::map<std::int64_t, Picture> tiles_;  // by second / step
};

}  // namespace avsbg_run
