// The video with its masks tinted in, its sound kept, as runtime/segment/overlay.py writes it; masks between those of
// the network, as interpolation.py makes them.
#pragma once

#include <functional>
#include <memory>

#include "channel.h"
#include "encoder.h"
#include "segmenter.h"

namespace avsbg_run {

// A mask in the video's size, or, to be interpolated, what the network says.
struct ShownMask {
  std::int64_t number;  // of the place, or the second
  std::vector<std::uint8_t> mask;
  std::shared_ptr<const Segmented> result;
};

struct ShowOptions {
  std::string overlay, mask_video;  // paths; empty where it is not to be written
  bool fragments = false;           // of a source without an end
  double threshold = 0.5;
  bool interpolate = false;
  std::vector<std::string> labels;  // of masks of classes
  std::optional<Places> places;     // of the masks; none for a mask for each second
};

// Writes what has all frames of a video, whose masks come in order and are waited for. Returns how many masks were made
// between two of the network's. Throws MediaError.
std::int64_t show_frames(const VideoInfo& video, FrameSource& frames, Channel<ShownMask>& masks, const ShowOptions& options);

}  // namespace avsbg_run
