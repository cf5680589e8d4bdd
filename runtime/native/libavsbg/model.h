// The objects behind the handles of the C interface.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "avsbg.h"
#include "inference/session.h"

namespace avsbg {

// An open bundle with the sessions that were asked for; it never changes. Masks that lie on a GPU keep it alive, so it is
// made by std::make_shared.
struct Model : std::enable_shared_from_this<Model> {
  Model(const std::string& path, const SessionOptions& options, bool clips, bool streams);

  const Bundle bundle;
  const SessionOptions options;
  std::unique_ptr<Session> clip, encode, decode;
  std::string description;  // JSON

  const Manifest& manifest() const { return bundle.manifest(); }
  const TensorRecord& audio_input() const;  // of the encoder, else of the clip graph
  bool takes_waveform() const;
  // The outputs that masks hold: probability, of several classes also their numbers, and on request logits.
  std::vector<std::string> outputs(bool logits) const;
};

// The maps of one frame, each [H][W].
struct Mask {
  std::int64_t index = 0, segment = 0;
  double time = 0;
  avsbg_partner partner = AVSBG_PARTNER_NONE;
  int height = 0, width = 0;
  std::vector<float> probability, logits;
  std::vector<std::int32_t> classes;
  std::shared_ptr<const float> device_probability;  // in a GPU's memory, or null
};
using MaskPointer = std::shared_ptr<const Mask>;

// Takes the memory that a session keeps for an output on a GPU, which then keeps the model alive; null where it is the
// host's memory.
std::shared_ptr<const float> share_device_memory(const Model& model, Tensor& output);

// Frame `index` of outputs [1, T, H, W], or the one of outputs [1, H, W], and of `device`, their probability on a GPU.
// Throws an Error for NaN or infinity.
Mask make_mask(const Tensors& outputs, std::size_t index, int height, int width,
               const std::shared_ptr<const float>& device);

// A frame as the network takes it, uint8 [height][width][3]; an Error of AVSBG_ERROR_MEDIA if it is none.
std::vector<std::uint8_t> fit_frame(const avsbg_frame& frame, const Manifest& manifest);

// Segments a clip; see avsbg_clip_run.
std::vector<MaskPointer> run_clip(const Model& model, const std::vector<avsbg_frame>& frames, const float* sound,
                                  std::size_t samples);

}  // namespace avsbg
