// Compiled without contraction of products and sums: numpy rounds after each.
#include "media/preprocessing.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace avsbg {
namespace {

struct Tap {
  std::size_t first, second;
  float weight;
};

// For each place of the target its two neighbours; pixel centres lie at halves, and edges are repeated.
std::vector<Tap> make_taps(int target, int source) {
  std::vector<Tap> taps(static_cast<std::size_t>(target));
  for (int i = 0; i < target; ++i) {
    const double place = (i + 0.5) * source / target - 0.5;
    const double first = std::floor(place);
    const auto clip = [&](double at) { return static_cast<std::size_t>(std::clamp(at, 0.0, source - 1.0)); };
    taps[static_cast<std::size_t>(i)] = {clip(first), clip(first + 1), static_cast<float>(place - first)};
  }
  return taps;
}

}  // namespace

void resize_bilinear(const std::uint8_t* pixels, int width, int height, std::size_t stride, int target_width,
                     int target_height, std::uint8_t* out) {
  const std::vector<Tap> down = make_taps(target_height, height), along = make_taps(target_width, width);
  const auto mix = [](float one, float other, float weight) { return one + (other - one) * weight; };
  for (const Tap& row : down) {
    const std::uint8_t* const top = pixels + row.first * stride;
    const std::uint8_t* const bottom = pixels + row.second * stride;
    for (const Tap& column : along) {
      for (std::size_t channel = 0; channel < 3; ++channel) {
        const std::size_t left = 3 * column.first + channel, right = 3 * column.second + channel;
        const float upper = mix(top[left], top[right], column.weight);
        const float lower = mix(bottom[left], bottom[right], column.weight);
        *out++ = static_cast<std::uint8_t>(std::nearbyint(mix(upper, lower, row.weight)));
      }
    }
  }
}

void resize_nearest(const std::uint8_t* values, int width, int height, int out_width, int out_height, std::uint8_t* out) {
  // As Pillow steps from pixel to pixel, whose sum may round another way than a product.
  const auto places = [](int target, int source) {
    std::vector<std::size_t> found(static_cast<std::size_t>(target));
    const double step = static_cast<double>(source) / target;
    double at = step * 0.5;
    for (std::size_t& one : found) {
      one = static_cast<std::size_t>(std::min(static_cast<int>(at), source - 1));
      at += step;
    }
    return found;
  };
  const std::vector<std::size_t> columns = places(out_width, width);
  for (const std::size_t row : places(out_height, height)) {
    const std::uint8_t* const from = values + row * static_cast<std::size_t>(width);
    for (const std::size_t column : columns) *out++ = from[column];
  }
}

std::vector<float> repeat_waveform(const std::vector<float>& waveform, std::size_t samples) {
  std::vector<float> repeated(samples);
  for (std::size_t i = 0; i < samples && !waveform.empty(); ++i) repeated[i] = waveform[i % waveform.size()];
  return repeated;
}

std::vector<float> repeat_last_patch(const std::vector<float>& waveform, std::size_t samples) {
  std::vector<float> padded = waveform;
  if (padded.size() >= samples) {
    padded.resize(samples);
    return padded;
  }
  padded.resize(std::max(padded.size(), kPatchSamples));
  const std::size_t patches = (padded.size() - (kPatchSamples - kPatchHop)) / kPatchHop;
  const std::size_t last = (patches - 1) * kPatchHop;
  std::vector<float> result(samples);
  for (std::size_t i = 0; i < samples; ++i) {
    result[i] = padded[i < patches * kPatchHop ? i : last + (i - patches * kPatchHop) % kPatchHop];
  }
  return result;
}

}  // namespace avsbg
