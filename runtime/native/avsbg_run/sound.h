// The sound of a source: mono, at the network's rate, from the first frame on; the rules of runtime/media/audio.py.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "media.h"

extern "C" {
#include <libswresample/swresample.h>
}

namespace avsbg_run {

struct FreeResampler {
  void operator()(SwrContext* one) const { swr_free(&one); }
};
using Resampler = std::unique_ptr<SwrContext, FreeResampler>;

int channels_of(const AVFrame& frame);

// Makes mono samples at one rate of decoded sound, which follow each other without a gap from `start` on. Where the time
// stamps leave a gap there is silence, and where they step back the overlap is dropped.
class Aligner {
 public:
  // `name` for messages. `joins`: time stamps that are kept to exactly, seconds: what follows is of another recording.
  Aligner(std::string name, Fraction start, int rate, const std::vector<Fraction>& joins = {});

  void push(const Decoded& sound);
  // Ends the sound: what the resampler holds comes out.
  void finish();
  // Drops the next samples, which someone has stopped waiting for.
  void skip(std::int64_t count) { drop_ += count; }

  std::deque<float> samples;  // that are ready

 private:
  void place(const Decoded& sound);
  void set_resampler(AVSampleFormat format, int channels, int rate);
  void resample(const std::uint8_t** planes, int count);
  void keep(const float* values, std::size_t count);

  std::string name_;
  Fraction start_;
  int rate_;
  std::deque<Fraction> joins_;
  Resampler resampler_;
  int in_format_ = -1, in_channels_ = 0, in_rate_ = 0;  // of the resampler
  std::optional<Fraction> position_;  // from `start`, of the last frame that was placed
  std::int64_t since_ = 0;            // samples from there on
  int since_rate_ = 1;
  std::int64_t drop_ = 0;             // samples still to be dropped
};

// The first `count` of samples, which are taken out; silence stands for those that are not there.
std::vector<float> take_samples(std::deque<float>& samples, std::size_t count);

// The sound of a video; silence where the track has ended.
class SoundReader {
 public:
  SoundReader(const VideoInfo& video, int rate, Damage* damage);
  std::vector<float> read(std::size_t count);

 private:
  Container container_;
  Aligner aligner_;
  bool ended_ = false;
};

// The sound of places, which overlap where there are several phases, of sound that is read once.
class SoundWindows {
 public:
  // `read` returns the next so many samples.
  SoundWindows(std::function<std::vector<float>(std::size_t)> read, int rate) : read_(std::move(read)), rate_(rate) {}
  // The first `length` seconds of a place's sound; places may come a second out of order.
  std::vector<float> read(const Place& place, const Fraction& length);

 private:
  std::function<std::vector<float>(std::size_t)> read_;
  int rate_;
  std::deque<float> held_;
  std::int64_t start_ = 0;  // number of the first that is held
};

// The number of the first sample of a place's sound, and how many they are.
std::pair<std::int64_t, std::int64_t> place_samples(const Place& place, const Fraction& length, int rate);

}  // namespace avsbg_run
