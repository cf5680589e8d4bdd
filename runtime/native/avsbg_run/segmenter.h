// The network on the samples of one source: runtime/segment/segmenter.py.
#pragma once

#include <avsbg.hpp>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "places.h"

namespace avsbg_run {

// RGB pixels, [height][width][3].
struct Picture {
  int width = 0, height = 0;
  std::vector<std::uint8_t> pixels;
};
using PicturePtr = std::shared_ptr<const Picture>;

// A second of a source: its frame and its sound.
struct Sample {
  std::int64_t number;  // of the place
  Place place;
  Fraction time;        // when its frame begins
  PicturePtr picture;   // in the source's size; of phases but the first, in the network's: what waits is to be small
  std::vector<float> sound;
};

struct Segmented {
  std::int64_t number;
  Place place;
  Fraction time;
  PicturePtr picture;
  avsbg::Mask mask;
};

struct SegmenterOptions {
  bool stream = false;       // frame by frame, else clip by clip
  bool live = false;         // the sound is taken from where the frame is
  bool by_clips = false;     // no second is the partner of one in another clip: all masks are those of clip mode
  bool interleaved = false;  // several phases may come, each with the masks of a source of its own
};

// A picture in the size that the network takes.
PicturePtr resize_picture(const avsbg::Model& model, const Picture& picture);

class Segmenter {
 public:
  Segmenter(const avsbg::Model& model, const SegmenterOptions& options);
  ~Segmenter();

  // Takes the next sample; returns those that have become final, in order.
  std::vector<Segmented> push(Sample sample);
  // Ends the source; returns what is left.
  std::vector<Segmented> finish();
  std::size_t phases() const { return phases_.size(); }

 private:
  class Phase;
  void keep(std::vector<Segmented> results);
  std::vector<Segmented> in_order();

  const avsbg::Model& model_;
  SegmenterOptions options_;
  std::map<int, std::unique_ptr<Phase>> phases_;
  std::deque<std::int64_t> pushed_;          // numbers whose masks have not been returned
  std::map<std::int64_t, Segmented> done_;   // masks that wait for one before them
  std::map<int, std::int64_t> newest_;       // the last second of each phase that goes on
};

}  // namespace avsbg_run
