#include "model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.h"
#include "media/preprocessing.h"

namespace avsbg {
namespace {

Tensor make_tensor(DType dtype, std::vector<std::int64_t> shape, const void* data, std::size_t bytes) {
  Array array{dtype, std::move(shape), std::vector<std::uint8_t>(bytes)};
  if (bytes > 0) std::memcpy(array.bytes.data(), data, bytes);
  return Tensor(std::move(array));
}

// The sound of a clip in the form that the graph takes.
Tensor clip_sound(const TensorRecord& record, const Manifest& manifest, const float* sound, std::size_t samples) {
  const std::vector<std::int64_t> shape = record.single_shape();
  if (!manifest.uses_audio) {
    Array silence{record.dtype, shape, {}};
    std::size_t bytes = size_of(record.dtype);
    for (const std::int64_t size : shape) bytes *= static_cast<std::size_t>(size);
    silence.bytes.resize(bytes);
    return Tensor(std::move(silence));
  }
  const std::size_t needed = static_cast<std::size_t>(manifest.frames) * static_cast<std::size_t>(manifest.sample_rate);
  std::vector<float> waveform(sound, sound + samples);
  waveform = manifest.shared_sound ? repeat_waveform(waveform, needed) : repeat_last_patch(waveform, needed);
  if (record.name == "log_mel") {
    waveform = log_mel(waveform.data(), waveform.size());
    waveform.resize(std::min(waveform.size(), static_cast<std::size_t>(manifest.frames) * kPatchRows * kMelBands));
  }
  return make_tensor(DType::kFloat32, shape, waveform.data(), waveform.size() * sizeof(float));
}

void check_streams(const Bundle& bundle) {
  const Manifest& manifest = bundle.manifest();
  if (manifest.graphs.count("encode") && manifest.graphs.count("decode")) return;
  if (!manifest.mixes_frames.empty()) {
    throw backend_error(manifest.network + " cannot be streamed: " + manifest.mixes_frames + ".",
                        "Run it on clips, or stream avs-bg, in which only neighbouring frames interact.");
  }
  throw backend_error(bundle.path() + " has no graphs for streams.", "Export it again with --stream.");
}

bool is_feature(const std::string& name) { return name.rfind("fused.", 0) == 0 || name.rfind("partner.", 0) == 0; }

// One graph's features are what the other takes.
void check_pair(const Session& encode, const Session& decode) {
  for (const TensorRecord& tensor : decode.contract().inputs) {
    std::string name = tensor.name;
    if (name.rfind("partner.", 0) == 0) name = "fused." + name.substr(8);
    const TensorRecord* const source = encode.contract().output(name);
    if (source == nullptr || source->describe() != tensor.describe()) {
      throw backend_error("the graph " + decode.graph() + " takes " + tensor.name + " as " + tensor.describe() + ", and " +
                              encode.graph() + " returns " + (source == nullptr ? "nothing" : source->describe()) + ".",
                          "Take both graphs in the same precision.");
    }
  }
}

const TensorRecord& find_audio(const GraphRecord& graph) {
  for (const TensorRecord& tensor : graph.inputs) {
    if (tensor.name != "frames" && !is_feature(tensor.name)) return tensor;
  }
  throw bundle_error("a graph of the bundle takes no sound, not even silence.", "Export the bundle again.");
}

}  // namespace

Model::Model(const std::string& path, const SessionOptions& given, bool clips, bool streams)
    : bundle(Bundle::open(path)), options(given) {
  if (streams) {
    check_streams(bundle);
    SessionOptions of_encoder = options;  // our operator is the decoder's
    of_encoder.spec.implementation.clear();
    encode = std::make_unique<Session>(bundle, "encode", of_encoder);
    decode = std::make_unique<Session>(bundle, "decode", options);
    check_pair(*encode, *decode);
  }
  if (clips) clip = std::make_unique<Session>(bundle, "clip", options);
  nlohmann::json document = nlohmann::json::object();
  if (clip) document["clip"] = clip->description();
  if (encode) document["encode"] = encode->description();
  if (decode) document["decode"] = decode->description();
  description = document.dump();
  find_audio((encode ? encode : clip)->contract());
}

const TensorRecord& Model::audio_input() const { return find_audio((encode ? encode : clip)->contract()); }

bool Model::takes_waveform() const {
  const std::string& name = audio_input().name;
  return name == "waveform" || name == "log_mel";
}

std::vector<std::string> Model::outputs(bool logits) const {
  std::vector<std::string> names = {"probability"};
  if (!manifest().labels.empty()) names.push_back("classes");
  if (logits) names.push_back("logits");
  return names;
}

std::shared_ptr<const float> share_device_memory(const Model& model, Tensor& output) {
  struct Kept {
    std::shared_ptr<const Model> model;  // goes after the tensor, which its session frees
    Tensor tensor;
  };
  if (output.device_memory() == nullptr) return nullptr;
  const auto kept = std::make_shared<const Kept>(Kept{model.shared_from_this(), output.detach()});
  return {kept, static_cast<const float*>(kept->tensor.device_memory())};
}

Mask make_mask(const Tensors& outputs, std::size_t index, int height, int width,
               const std::shared_ptr<const float>& device) {
  Mask mask;
  mask.height = height;
  mask.width = width;
  const std::size_t pixels = static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
  const auto slice = [&](const char* name, auto& target) {
    using Value = typename std::decay_t<decltype(target)>::value_type;
    const auto found = outputs.find(name);
    if (found == outputs.end()) return;
    const Array& array = found->second.array();
    // Logits of several classes have a map for each; a mask holds one.
    if (array.bytes.size() / sizeof(Value) < (index + 1) * pixels) {
      throw backend_error(std::string("the output ") + name + " is smaller than the masks that it should hold.");
    }
    target.assign(array.as<Value>() + index * pixels, array.as<Value>() + (index + 1) * pixels);
  };
  slice("probability", mask.probability);
  if (device) mask.device_probability = {device, device.get() + index * pixels};
  slice("classes", mask.classes);
  slice("logits", mask.logits);
  for (const std::vector<float>* const values : {&mask.probability, &mask.logits}) {
    if (!std::all_of(values->begin(), values->end(), [](float one) { return std::isfinite(one); })) {
      throw backend_error("the network returned NaN or infinity for the frame " + std::to_string(index) + ".",
                          "Check the bundle with `avsbg-run verify`; a lower precision may overflow.");
    }
  }
  return mask;
}

std::vector<std::uint8_t> fit_frame(const avsbg_frame& frame, const Manifest& manifest) {
  const std::size_t stride = frame.stride == 0 ? 3 * static_cast<std::size_t>(std::max(frame.width, 0)) : frame.stride;
  if (frame.pixels == nullptr || frame.width < 1 || frame.height < 1 ||
      stride < 3 * static_cast<std::size_t>(frame.width)) {
    throw media_error("a frame is RGB, [height][width][3], not of " + std::to_string(frame.width) + " x " +
                      std::to_string(frame.height) + " pixels in rows of " + std::to_string(stride) + " bytes.");
  }
  const std::size_t row = 3 * static_cast<std::size_t>(manifest.width);
  std::vector<std::uint8_t> fitted(row * static_cast<std::size_t>(manifest.height));
  if (frame.width == manifest.width && frame.height == manifest.height) {
    for (int y = 0; y < frame.height; ++y) {
      std::memcpy(fitted.data() + static_cast<std::size_t>(y) * row, frame.pixels + static_cast<std::size_t>(y) * stride, row);
    }
  } else {
    resize_bilinear(frame.pixels, frame.width, frame.height, stride, manifest.width, manifest.height, fitted.data());
  }
  return fitted;
}

std::vector<MaskPointer> run_clip(const Model& model, const std::vector<avsbg_frame>& frames, const float* sound,
                                  std::size_t samples) {
  const Manifest& manifest = model.manifest();
  if (!model.clip) throw argument_error("the model was not opened for clips.", "Open it with AVSBG_CLIPS in `uses`.");
  if (frames.empty() || frames.size() > static_cast<std::size_t>(manifest.frames)) {
    throw media_error("a clip has 1 to " + std::to_string(manifest.frames) + " frames, not " + std::to_string(frames.size()) + ".");
  }
  if (!std::all_of(sound, sound + samples, [](float one) { return std::isfinite(one); })) {
    throw media_error("sound holds NaN or infinity.", "Check the device or the decoder that it comes from.");
  }
  std::vector<std::uint8_t> pixels;
  for (std::size_t i = 0; i < static_cast<std::size_t>(manifest.frames); ++i) {
    if (i < frames.size()) {
      const std::vector<std::uint8_t> fitted = fit_frame(frames[i], manifest);
      pixels.insert(pixels.end(), fitted.begin(), fitted.end());
    } else {  // the last frame is repeated for what is missing
      const std::size_t size = pixels.size() / i;
      pixels.insert(pixels.end(), pixels.end() - static_cast<std::ptrdiff_t>(size), pixels.end());
    }
  }
  Tensors inputs;
  std::map<std::string, const Tensor*> given;
  for (const TensorRecord& record : model.clip->contract().inputs) {
    if (record.name == "frames") {
      inputs[record.name] = make_tensor(DType::kUint8, record.single_shape(), pixels.data(), pixels.size());
    } else {
      if (manifest.uses_audio && record.name != "waveform" && record.name != "log_mel") {
        throw media_error("the bundle's graph takes '" + record.name + "', which cannot be made from a video alone.",
                          "Export the bundle again with --audio waveform.");
      }
      inputs[record.name] = clip_sound(record, manifest, sound, samples);
    }
    given[record.name] = &inputs[record.name];
  }
  Tensors outputs = model.clip->run(given, model.outputs(false), Place::kBoth);
  const std::shared_ptr<const float> device = share_device_memory(model, outputs.at("probability"));
  std::vector<MaskPointer> masks;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    Mask mask = make_mask(outputs, i, manifest.height, manifest.width, device);
    mask.index = static_cast<std::int64_t>(i);
    mask.time = static_cast<double>(i);
    masks.push_back(std::make_shared<const Mask>(std::move(mask)));
  }
  return masks;
}

}  // namespace avsbg
