// The files that a run writes of its masks, one after the other: runtime/segment/masks.py and the lines of frames.jsonl.
#pragma once

#include <optional>

#include "encoder.h"
#include "options.h"
#include "outputs.h"
#include "segmenter.h"

namespace avsbg_run {

// Figures of a run.
struct Record {
  std::int64_t seconds = 0, masks = 0;  // masks of all phases; as many as seconds at one a second
  std::int64_t sounding = 0;            // seconds with something that sounds
  double area = 0;                      // the sum of the masks' shares of the frame, and of how many masks
  std::int64_t areas = 0;
};

class ResultWriter {
 public:
  // `by_place`: masks are named and timed as those of places, at several a second.
  ResultWriter(const std::string& directory, const VideoInfo& video, std::vector<std::string> labels,
               const Options& options, bool by_place);

  // Returns the mask in the video's size: 255 where it sounds, or numbers of classes.
  std::vector<std::uint8_t> write(const Segmented& one);
  void finish();

  Record record;

 private:
  const std::string directory_;
  const VideoInfo& video_;
  const std::vector<std::string> labels_;
  const Options& options_;
  const bool by_place_;
  std::ofstream lines_;
  std::optional<CocoWriter> coco_;
  std::optional<MaskVideo> mask_video_;
};

double rounded(double value, double digits);

}  // namespace avsbg_run
