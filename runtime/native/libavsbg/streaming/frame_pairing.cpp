#include "error.h"
#include "media/preprocessing.h"
#include "streaming/stream.h"

namespace avsbg {

FramePairing::FramePairing(const Model& model, const StreamOptions& options)
    : model_(model), audio_(model.audio_input()), outputs_(model.outputs(options.logits)),
      zero_latency_(options.zero_latency) {
  // Without motion a frame's mask needs no second frame.
  for (const TensorRecord& tensor : model.decode->contract().inputs) {
    has_partners_ = has_partners_ || tensor.name.rfind("partner.", 0) == 0;
  }
}

void FramePairing::add(StreamFrame frame, std::deque<MaskPointer>& masks) {
  before_.reset();  // so that the new features may take its memory
  const Manifest& manifest = model_.manifest();
  Tensors inputs;
  inputs["frames"] = Tensor(Array{DType::kUint8, {1, manifest.height, manifest.width, 3}, std::move(frame.pixels)});
  inputs[audio_.name] = audio_tensor(frame);
  std::map<std::string, const Tensor*> given;
  for (const auto& [name, tensor] : inputs) given[name] = &tensor;
  std::vector<std::string> names;
  for (const TensorRecord& tensor : model_.encode->contract().outputs) names.push_back(tensor.name);
  frame.features = model_.encode->run(given, names, Place::kSession);
  frame.audio.reset();
  before_ = std::move(last_);
  last_ = std::make_unique<StreamFrame>(std::move(frame));
  if (!has_partners_) {
    masks.push_back(decode(*last_, *last_, AVSBG_PARTNER_NONE));
  } else if (zero_latency_) {
    masks.push_back(decode_by_past());
  } else if (before_) {
    masks.push_back(decode(*before_, *last_, AVSBG_PARTNER_NEXT));
  }
}

void FramePairing::end_segment(std::deque<MaskPointer>& masks) {
  try {
    if (last_ && has_partners_ && !zero_latency_) masks.push_back(decode_by_past());
  } catch (...) {
    drop();
    throw;
  }
  drop();
}

void FramePairing::drop() {
  before_.reset();
  last_.reset();
}

Tensor FramePairing::audio_tensor(const StreamFrame& frame) const {
  Array array{audio_.dtype, audio_.single_shape(), {}};
  std::size_t bytes = size_of(audio_.dtype);
  for (const std::int64_t size : array.shape) bytes *= static_cast<std::size_t>(size);
  array.bytes.resize(bytes);
  if (model_.manifest().uses_audio && frame.audio) {
    std::vector<float> values = *frame.audio;
    if (audio_.name == "log_mel") values = log_mel(values.data(), values.size());
    const std::size_t have = std::min(bytes, values.size() * sizeof(float));
    if (audio_.dtype != DType::kFloat32 || have < bytes) {
      throw backend_error("the graph " + model_.encode->graph() + " takes sound in a form that is not known.");
    }
    std::copy_n(reinterpret_cast<const std::uint8_t*>(values.data()), have, array.bytes.data());
  }
  return Tensor(std::move(array));
}

MaskPointer FramePairing::decode_by_past() const {
  return decode(*last_, before_ ? *before_ : *last_, before_ ? AVSBG_PARTNER_PREVIOUS : AVSBG_PARTNER_ITSELF);
}

MaskPointer FramePairing::decode(const StreamFrame& frame, const StreamFrame& partner, avsbg_partner kind) const {
  std::map<std::string, const Tensor*> given;
  for (const TensorRecord& tensor : model_.decode->contract().inputs) {
    const bool of_partner = tensor.name.rfind("partner.", 0) == 0;
    const std::string name = of_partner ? "fused." + tensor.name.substr(8) : tensor.name;
    given[tensor.name] = &(of_partner ? partner : frame).features.at(name);
  }
  Tensors outputs = model_.decode->run(given, outputs_, Place::kBoth);
  const std::shared_ptr<const float> device = share_device_memory(model_, outputs.at("probability"));
  Mask mask = make_mask(outputs, 0, model_.manifest().height, model_.manifest().width, device);
  mask.index = frame.index;
  mask.segment = frame.segment;
  mask.time = frame.time;
  mask.partner = kind;
  return std::make_shared<const Mask>(std::move(mask));
}

}  // namespace avsbg
