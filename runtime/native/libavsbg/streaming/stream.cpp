#include "streaming/stream.h"

#include <cmath>

#include "error.h"
#include "media/preprocessing.h"

namespace avsbg {
namespace {

void check_seconds(const char* name, double seconds) {
  if (!(seconds >= 0)) {
    throw backend_error(std::string(name) + " is a number of seconds from 0 on, not " + std::to_string(seconds) + ".");
  }
}

}  // namespace

Stream::Stream(std::shared_ptr<const Model> model, const StreamOptions& options)
    : model_(std::move(model)), options_(options),
      offset_(options.frame_offset.value_or(model_->manifest().frame_offset)), window_(kPatchSamples),
      pairing_(*model_, options), timeline_(model_->manifest().sample_rate) {
  check_seconds("max_gap", options.max_gap);
  check_seconds("patience", options.patience);
  if (!std::isfinite(offset_)) {
    throw backend_error("frame_offset is a finite number of seconds, not " + std::to_string(offset_) + ".");
  }
  if (model_->manifest().shared_sound && model_->takes_waveform()) {
    window_ = static_cast<std::size_t>(model_->audio_input().single_shape().at(1));
  }
}

void Stream::push(const avsbg_frame& frame, std::optional<double> timestamp) {
  check_open();
  const Manifest& manifest = model_->manifest();
  const double following = newest_ ? *newest_ + manifest.seconds_per_frame : offset_;
  const double time = timestamp.value_or(following);
  if (!std::isfinite(time) || (newest_ && time <= *newest_)) {
    throw media_error("a frame's timestamp must be later than that of the frame before, " +
                          (newest_ ? std::to_string(*newest_) : std::string("none")) + ", not " + std::to_string(time) + ".",
                      "Where the clock begins anew, call avsbg_stream_cut first.");
  }
  StreamFrame taken;
  taken.pixels = fit_frame(frame, manifest);
  if (manifest.uses_audio && !model_->takes_waveform()) {
    const TensorRecord& audio = model_->audio_input();
    if (frame.features == nullptr) throw media_error("this bundle takes " + audio.name + " with each frame, not none.");
    std::size_t count = 1;
    for (const std::int64_t size : audio.single_shape()) count *= static_cast<std::size_t>(size);
    taken.audio = std::vector<float>(frame.features, frame.features + count);
  }
  if (!newest_ || time - *newest_ > options_.max_gap) {
    if (newest_) finish_segment();
    origin_ = time - offset_;
    ++segments_;
  }
  newest_ = time;
  taken.index = frames_++;
  taken.segment = segments_ - 1;
  taken.time = time;
  taken.start = window_start(time);
  waiting_.push_back(std::move(taken));
  advance(/*wait=*/true);
}

void Stream::push_sound(const float* samples, std::size_t count, int rate, std::optional<double> time) {
  check_open();
  if (!model_->takes_waveform()) {
    throw media_error("this bundle takes " + model_->audio_input().name + ": give each frame its own (features).");
  }
  if (rate != model_->manifest().sample_rate) {
    throw media_error("sound of " + std::to_string(rate) + " Hz; the bundle takes " +
                          std::to_string(model_->manifest().sample_rate) + " Hz, mono.",
                      "Resample it first, as with FFmpeg's libswresample.");
  }
  timeline_.push(samples, count, time);
  advance(/*wait=*/true);
}

void Stream::cut() {
  check_open();
  finish_segment();
  timeline_.clear();
  newest_.reset();
}

void Stream::finish() {
  if (closed_) return;
  closed_ = true;
  finish_segment();
}

avsbg_stream_counters Stream::counters() const {
  const AudioCounters& sound = timeline_.counters;
  return {0,          frames_,       returned_,     segments_,    incomplete_,
          sound.received, sound.late, sound.overdue, sound.missing};
}

void Stream::check_open() const {
  if (closed_) throw backend_error("the stream was finished.", "Open another one.");
}

double Stream::window_start(double time) const {
  const Manifest& manifest = model_->manifest();
  if (manifest.shared_sound) {
    return time - offset_ + manifest.seconds_per_frame - static_cast<double>(window_) / manifest.sample_rate;
  }
  if (!options_.published_spacing) return time - offset_;
  const double elapsed = time - offset_ - origin_;
  const double period = manifest.frames * manifest.seconds_per_frame;
  // Times are sums of floats: without the margin, the first frame of a block could fall into the one before.
  const double block = std::floor(elapsed / period + 1e-6) * period;
  return origin_ + block + (elapsed - block) * static_cast<double>(kPatchHop) / manifest.sample_rate;
}

void Stream::advance(bool wait) {
  const std::size_t before = masks.size();
  try {
    while (!waiting_.empty() && find_sound(waiting_.front(), wait)) {
      StreamFrame frame = std::move(waiting_.front());
      waiting_.pop_front();
      pairing_.add(std::move(frame), masks);
    }
  } catch (...) {
    pairing_.drop();
    waiting_.clear();
    masks.resize(before);
    throw;
  }
  returned_ += static_cast<std::int64_t>(masks.size() - before);
}

bool Stream::find_sound(StreamFrame& frame, bool wait) {
  if (!model_->manifest().uses_audio || frame.audio) return true;
  timeline_.forget(frame.start);
  const std::int64_t before = timeline_.counters.missing;
  frame.audio = timeline_.window(frame.start, window_);
  if (!frame.audio) {
    const double end = frame.start + static_cast<double>(window_) / model_->manifest().sample_rate;
    if (wait && !(*newest_ - end > options_.patience)) return false;
    frame.audio = timeline_.window(frame.start, window_, /*complete=*/false);
  }
  incomplete_ += timeline_.counters.missing > before;
  return true;
}

void Stream::finish_segment() {
  advance(/*wait=*/false);
  const std::size_t before = masks.size();
  pairing_.end_segment(masks);
  returned_ += static_cast<std::int64_t>(masks.size() - before);
}

}  // namespace avsbg
