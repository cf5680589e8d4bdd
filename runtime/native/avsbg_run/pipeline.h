// The steps of segmenting a source, at work at the same time: read, infer, write masks, encode the overlay.
#pragma once

#include <avsbg.hpp>
#include <functional>
#include <memory>

#include "media.h"
#include "options.h"
#include "results.h"
#include "segmenter.h"

namespace avsbg_run {

// A source, and what is to become of it.
struct Work {
  const avsbg::Model& model;
  const Options& options;
  const VideoInfo& video;
  std::string directory;
  SegmenterOptions segmenter;
  std::optional<Places> places;  // of the masks, at several a second, or where they are interpolated
  bool drops = false;            // lose a source's oldest seconds, where it is too fast, and do not let it wait
  bool fragments = false;        // write the overlay of a source without an end
  // Hands over the samples in order, until `take` returns false.
  std::function<void(const std::function<bool(Sample)>& take)> read;
  // Opens the decoded frames and sound for the overlay.
  std::function<std::unique_ptr<FrameSource>()> frames;
  // Breaks off what the two wait for.
  std::function<void()> abort = [] {};
};

// Facts of the masks and files written, for the summary.
struct RunStatistics {
  Record record;
  std::size_t phases = 1;
  Json seconds_spent, most_waiting, left_out = Json::object();
  std::int64_t dropped_seconds = 0;
  std::optional<std::int64_t> interpolated;
};

// Writes what the options ask for, but for the summary. Throws the first error of any step; all have stopped by then.
RunStatistics write_outputs(const Work& work);

// The seconds of a mask on this machine.
double measure_mask(const avsbg::Model& model, bool stream);

std::vector<std::string> labels_of(const avsbg::Model& model);

}  // namespace avsbg_run
