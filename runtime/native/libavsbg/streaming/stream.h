// Masks of an endless stream: one encoder pass for each new frame. The rules of runtime/streaming/stream.py and
// frame_pair.py.
#pragma once

#include <deque>
#include <memory>
#include <optional>

#include "model.h"
#include "streaming/audio_timeline.h"

namespace avsbg {

struct StreamOptions {
  bool zero_latency = false, published_spacing = false, logits = false;
  double max_gap = 2.0, patience = 2.0;
  std::optional<double> frame_offset;
};

// A frame on its way to its mask; once it is encoded, it has features in place of pixels and sound.
struct StreamFrame {
  std::int64_t index = 0, segment = 0;
  double time = 0, start = 0;  // start: of its window of sound
  std::vector<std::uint8_t> pixels;
  std::optional<std::vector<float>> audio;  // nothing while it has not come
  Tensors features;
};

// Encodes frames in their order, and decodes their masks; it holds the features of two frames.
class FramePairing {
 public:
  FramePairing(const Model& model, const StreamOptions& options);

  // Encodes the next frame of a segment; the masks that become final go to `masks`.
  void add(StreamFrame frame, std::deque<MaskPointer>& masks);
  // Decodes the mask of the last frame, if it is not final yet, and forgets the frames.
  void end_segment(std::deque<MaskPointer>& masks);
  void drop();

 private:
  Tensor audio_tensor(const StreamFrame& frame) const;
  MaskPointer decode(const StreamFrame& frame, const StreamFrame& partner, avsbg_partner kind) const;
  MaskPointer decode_by_past() const;

  const Model& model_;
  const TensorRecord& audio_;
  std::vector<std::string> outputs_;
  bool zero_latency_, has_partners_ = false;
  std::unique_ptr<StreamFrame> last_, before_;  // the last frame encoded, and its predecessor
};

class Stream {
 public:
  Stream(std::shared_ptr<const Model> model, const StreamOptions& options);

  void push(const avsbg_frame& frame, std::optional<double> time);
  void push_sound(const float* samples, std::size_t count, int rate, std::optional<double> time);
  void cut();
  void finish();

  std::deque<MaskPointer> masks;  // final, and not yet taken
  avsbg_stream_counters counters() const;

 private:
  void check_open() const;
  double window_start(double time) const;
  void advance(bool wait);
  bool find_sound(StreamFrame& frame, bool wait);
  void finish_segment();

  std::shared_ptr<const Model> model_;
  StreamOptions options_;
  double offset_;
  std::size_t window_;  // samples of a frame's window of sound
  FramePairing pairing_;
  AudioTimeline timeline_;
  std::deque<StreamFrame> waiting_;
  double origin_ = 0;             // where the sound of the current segment begins
  std::optional<double> newest_;  // the time of the last frame pushed
  std::int64_t frames_ = 0, segments_ = 0, incomplete_ = 0, returned_ = 0;
  bool closed_ = false;
};

}  // namespace avsbg
