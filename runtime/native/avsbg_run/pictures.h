// Masks shown to people in RGB: the legend of classes, and the page of the seconds at a glance.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "media.h"
#include "segmenter.h"

namespace avsbg_run {

constexpr std::array<std::uint8_t, 3> kTint = {255, 64, 0};

// A panel with the names and colours of a mask's classes, the largest area first; as many as there is room for beside
// the mask, [height][width] of numbers. Width and height are even, and 0 where there are no classes.
Picture make_legend(const std::vector<std::uint8_t>& mask, int width, int height, const std::vector<std::string>& labels);

// Small overlays of a video's seconds on one page; of a long video every second, fourth, eighth, ... of them.
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
  std::vector<std::pair<std::int64_t, Picture>> tiles_;
  std::int64_t step_ = 1;
};

}  // namespace avsbg_run
