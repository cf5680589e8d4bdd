// The video with its masks tinted in, its sound kept: H.264 and AAC in MP4, as runtime/segment/overlay.py writes it.
#pragma once

#include "channel.h"
#include "media.h"

namespace avsbg_run {

// The mask of a second in the video's size: 255 where it sounds, or numbers of classes.
struct SecondMask {
  std::int64_t second;
  std::vector<std::uint8_t> mask;
};

// Writes the overlay to `path`; masks come in order, are waited for, and each stays until the next. Throws MediaError.
void write_overlay(const VideoInfo& video, const std::string& path, Channel<SecondMask>& masks, bool are_classes);

}  // namespace avsbg_run
