// The log-mel front end that VGGish was trained with (AudioSet, `torchvggish`), in double precision.
#include <algorithm>
#include <array>
#include <cmath>
#include <complex>

#include "media/preprocessing.h"

namespace avsbg {
namespace {

constexpr std::size_t kWindow = 400, kHop = 160, kFft = 512, kBins = kFft / 2 + 1;
constexpr double kRate = 16000, kLowHz = 125, kHighHz = 7500, kLogOffset = 0.01, kPi = 3.14159265358979323846;
using Complex = std::complex<double>;

double to_mel(double hertz) { return 1127.0 * std::log1p(hertz / 700.0); }

struct Tables {
  std::array<double, kWindow> hann;
  std::array<Complex, kFft / 2> turns;
  std::array<std::array<double, kMelBands>, kBins> mel{};  // triangles linear in mel; the constant bin counts for nothing

  Tables() {
    for (std::size_t i = 0; i < kWindow; ++i) hann[i] = 0.5 - 0.5 * std::cos(2 * kPi * static_cast<double>(i) / kWindow);
    for (std::size_t i = 0; i < turns.size(); ++i) turns[i] = std::polar(1.0, -2 * kPi * static_cast<double>(i) / kFft);
    const double low = to_mel(kLowHz), step = (to_mel(kHighHz) - low) / (kMelBands + 1);
    for (std::size_t bin = 1; bin < kBins; ++bin) {
      const double place = to_mel(static_cast<double>(bin) * (kRate / 2) / (kBins - 1));
      for (std::size_t band = 0; band < kMelBands; ++band) {
        const double left = low + static_cast<double>(band) * step;
        const double rising = (place - left) / step, falling = (left + 2 * step - place) / step;
        mel[bin][band] = std::max(0.0, std::min(rising, falling));
      }
    }
  }
};

// Cooley-Tukey, in place, radix 2.
void transform(std::array<Complex, kFft>& values, const Tables& tables) {
  for (std::size_t i = 1, j = 0; i < kFft; ++i) {
    std::size_t bit = kFft >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) std::swap(values[i], values[j]);
  }
  for (std::size_t length = 2; length <= kFft; length *= 2) {
    for (std::size_t begin = 0; begin < kFft; begin += length) {
      for (std::size_t k = 0; k < length / 2; ++k) {
        const Complex turned = values[begin + k + length / 2] * tables.turns[k * (kFft / length)];
        values[begin + k + length / 2] = values[begin + k] - turned;
        values[begin + k] += turned;
      }
    }
  }
}

}  // namespace

std::vector<float> log_mel(const float* waveform, std::size_t samples) {
  static const Tables tables;
  const std::size_t patches = samples < kWindow ? 0 : (samples - kWindow + kHop) / kPatchHop;
  std::vector<float> result(patches * kPatchRows * kMelBands);
  for (std::size_t row = 0; row < patches * kPatchRows; ++row) {
    std::array<Complex, kFft> values{};
    for (std::size_t i = 0; i < kWindow; ++i) values[i] = waveform[row * kHop + i] * tables.hann[i];
    transform(values, tables);
    std::array<double, kMelBands> sums{};
    for (std::size_t bin = 1; bin < kBins; ++bin) {
      const double magnitude = std::abs(values[bin]);
      for (std::size_t band = 0; band < kMelBands; ++band) sums[band] += magnitude * tables.mel[bin][band];
    }
    for (std::size_t band = 0; band < kMelBands; ++band) {
      result[row * kMelBands + band] = static_cast<float>(std::log(sums[band] + kLogOffset));
    }
  }
  return result;
}

}  // namespace avsbg
