// From frames and sound to a network's inputs: the arithmetic of runtime/media, to the bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace avsbg {

// VGGish's log-mel front end: samples of a patch of 0.96 s, and from one patch to the next.
constexpr std::size_t kPatchHop = 15360, kPatchSamples = 15600;
constexpr std::size_t kPatchRows = 96, kMelBands = 64;

// Bilinear between the four nearest pixels, without antialiasing: RGB rows of `stride` bytes to [height][width][3].
void resize_bilinear(const std::uint8_t* pixels, int width, int height, std::size_t stride, int target_width,
                     int target_height, std::uint8_t* out);

// Decisions in another size, [out_height][out_width]: each has the value of the nearest of `values` [height][width].
void resize_nearest(const std::uint8_t* values, int width, int height, int out_width, int out_height, std::uint8_t* out);

// Log-mel patches, [patches][96][64], of a waveform at 16 kHz; an incomplete patch is dropped.
std::vector<float> log_mel(const float* waveform, std::size_t samples);

// Lengthens a waveform by repeating the sound of its last whole patch, or cuts it.
std::vector<float> repeat_last_patch(const std::vector<float>& waveform, std::size_t samples);

// Lengthens a waveform by repeating it from its beginning, or cuts it.
std::vector<float> repeat_waveform(const std::vector<float>& waveform, std::size_t samples);

}  // namespace avsbg
