// The C interface of avsbg.h. Handles are heap objects with a shared pointer; a mask counts its own references.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>

#include "api/guard.h"
#include "media/preprocessing.h"
#include "model.h"
#include "streaming/stream.h"
#include "verify.h"

struct avsbg_model {
  std::shared_ptr<const avsbg::Model> model;
};
struct avsbg_stream {
  avsbg::Stream stream;
};
struct avsbg_mask {
  avsbg::MaskPointer mask;
  std::atomic<long> references{1};
};

namespace avsbg {
namespace {

thread_local std::string last_error, last_hint;

// A message in UTF-8, whatever bytes a damaged file put into it.
std::string readable(std::string text) {
  try {
    nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    std::replace_if(text.begin(), text.end(), [](char one) { return (one & 0x80) != 0; }, '?');
  }
  return text;
}

avsbg_mask* wrap(MaskPointer mask) { return new avsbg_mask{std::move(mask)}; }

SessionOptions session_options(const avsbg_model_options& given) {
  const auto text = [](const char* one) { return one == nullptr ? std::string() : std::string(one); };
  SessionOptions options;
  options.spec = BackendSpec::parse(given.backend == nullptr ? "onnxruntime" : given.backend);
  options.threads = given.threads;
  options.device = given.device;
  options.ignore_accuracy = given.ignore_accuracy != 0;
  options.trust = given.trust != 0;
  options.engine = text(given.engine);
  options.backend_folder = text(given.backend_folder);
  options.runtime_library = text(given.runtime_library);
  return options;
}

std::optional<double> optional(const double* value) { return value == nullptr ? std::nullopt : std::optional(*value); }

}  // namespace

avsbg_status remember(avsbg_status status, const char* message, const char* hint) noexcept {
  try {
    last_error = readable(message);
    last_hint = readable(hint);
  } catch (...) {
    last_error.clear();
    last_hint.clear();
  }
  return status;
}

}  // namespace avsbg

using namespace avsbg;

// Sizes of the structures in the first version of the interface: to the end of the last field that each had then.
#define AVSBG_SIZE_TO(structure, last) (offsetof(structure, last) + sizeof(structure::last))
constexpr std::size_t kModelOptions1 = AVSBG_SIZE_TO(avsbg_model_options, runtime_library),
                      kModelInfo1 = AVSBG_SIZE_TO(avsbg_model_info, frame_offset),
                      kMaskView1 = AVSBG_SIZE_TO(avsbg_mask_view, device_probability),
                      kFrame1 = AVSBG_SIZE_TO(avsbg_frame, features),
                      kStreamOptions1 = AVSBG_SIZE_TO(avsbg_stream_options, frame_offset),
                      kCounters1 = AVSBG_SIZE_TO(avsbg_stream_counters, sound_missing);

uint32_t avsbg_abi_version(void) { return AVSBG_ABI_VERSION; }
const char* avsbg_version(void) { return AVSBG_VERSION_TEXT; }
const char* avsbg_last_error(void) { return last_error.c_str(); }
const char* avsbg_last_hint(void) { return last_hint.c_str(); }

const char* avsbg_status_name(avsbg_status status) {
  static const char* const names[] = {"ok", "argument", "bundle", "backend", "media", "memory", "internal"};
  return status >= AVSBG_OK && status <= AVSBG_ERROR_INTERNAL ? names[status] : "unknown";
}

avsbg_status avsbg_model_open(const char* bundle, const avsbg_model_options* options, avsbg_model** model) {
  return guarded([&] {
    require(bundle, "bundle");
    require(model, "model");
    *model = nullptr;
    const avsbg_model_options given = read_structure(options, kModelOptions1, "options");
    const int uses = given.uses == 0 ? AVSBG_CLIPS : given.uses;
    if ((uses & ~(AVSBG_CLIPS | AVSBG_STREAMS)) != 0) throw argument_error("options.uses is " + std::to_string(uses) + ".");
    *model = new avsbg_model{std::make_shared<const Model>(bundle, session_options(given), (uses & AVSBG_CLIPS) != 0,
                                                           (uses & AVSBG_STREAMS) != 0)};
  });
}

void avsbg_model_close(avsbg_model* model) { delete model; }

avsbg_status avsbg_model_get_info(const avsbg_model* model, avsbg_model_info* info) {
  return guarded([&] {
    require(model, "model");
    const Model& opened = *model->model;
    const Manifest& manifest = opened.manifest();
    avsbg_model_info found{};
    found.frames = manifest.frames;
    found.height = manifest.height;
    found.width = manifest.width;
    found.sample_rate = manifest.sample_rate;
    found.uses_audio = manifest.uses_audio;
    found.takes_waveform = opened.takes_waveform();
    if (!opened.takes_waveform() && opened.encode) {
      found.feature_count = 1;
      for (const std::int64_t size : opened.audio_input().single_shape()) {
        found.feature_count *= static_cast<std::int32_t>(size);
      }
    }
    found.clips = opened.clip != nullptr;
    found.streams = opened.encode != nullptr;
    found.labels = static_cast<std::int32_t>(manifest.labels.size());
    found.frame_offset = manifest.frame_offset;
    write_structure(found, kModelInfo1, info, "info");
  });
}

const char* avsbg_model_name(const avsbg_model* model) {
  return model == nullptr ? "" : model->model->manifest().name.c_str();
}
const char* avsbg_model_manifest_sha256(const avsbg_model* model) {
  return model == nullptr ? "" : model->model->bundle.manifest_sha256().c_str();
}
const char* avsbg_model_describe(const avsbg_model* model) {
  return model == nullptr ? "" : model->model->description.c_str();
}
const char* avsbg_model_label(const avsbg_model* model, int32_t number) {
  if (model == nullptr) return nullptr;
  const std::vector<std::string>& labels = model->model->manifest().labels;
  return number < 0 || static_cast<std::size_t>(number) >= labels.size() ? nullptr
                                                                        : labels[static_cast<std::size_t>(number)].c_str();
}

avsbg_mask* avsbg_mask_retain(avsbg_mask* mask) {
  if (mask != nullptr) ++mask->references;
  return mask;
}
void avsbg_mask_release(avsbg_mask* mask) {
  if (mask != nullptr && --mask->references == 0) delete mask;
}

avsbg_status avsbg_mask_get(const avsbg_mask* mask, avsbg_mask_view* view) {
  return guarded([&] {
    require(mask, "mask");
    const Mask& held = *mask->mask;
    avsbg_mask_view found{};
    found.index = held.index;
    found.segment = held.segment;
    found.time = held.time;
    found.partner = held.partner;
    found.height = held.height;
    found.width = held.width;
    found.probability = held.probability.data();
    found.logits = held.logits.empty() ? nullptr : held.logits.data();
    found.classes = held.classes.empty() ? nullptr : held.classes.data();
    found.device_probability = held.device_probability.get();
    write_structure(found, kMaskView1, view, "view");
  });
}

avsbg_status avsbg_mask_decide(const avsbg_mask* mask, double threshold, int32_t width, int32_t height, uint8_t* out) {
  return guarded([&] {
    require(mask, "mask");
    require(out, "out");
    if (!(threshold >= 0 && threshold < 1)) {
      throw argument_error("the threshold must lie in [0, 1), not be " + std::to_string(threshold) + ".");
    }
    if (width < 1 || height < 1) {
      throw argument_error("a mask of " + std::to_string(width) + " x " + std::to_string(height) + " pixels.");
    }
    const Mask& held = *mask->mask;
    std::vector<std::uint8_t> decided(held.probability.size());
    for (std::size_t i = 0; i < decided.size(); ++i) {
      // numpy compares float32 with the threshold as float32.
      const bool sounds = held.probability[i] > static_cast<float>(threshold);
      decided[i] = held.classes.empty() ? (sounds ? 255 : 0) : static_cast<std::uint8_t>(held.classes[i]);
    }
    resize_nearest(decided.data(), held.width, held.height, width, height, out);
  });
}

avsbg_status avsbg_mask_interpolate(const avsbg_mask* earlier, const avsbg_mask* later, float share, avsbg_mask** mask) {
  return guarded([&] {
    require(earlier, "earlier");
    require(later, "later");
    require(mask, "mask");
    *mask = nullptr;
    if (!(share >= 0 && share <= 1)) throw argument_error("share is " + std::to_string(share) + ", not from 0 to 1.");
    Mask made = *earlier->mask;
    const Mask& next = *later->mask;
    if (!made.classes.empty() || !next.classes.empty()) throw argument_error("nothing lies between masks of classes.");
    if (made.width != next.width || made.height != next.height) throw argument_error("the masks differ in size.");
    made.logits.clear();
    made.device_probability.reset();  // of the earlier one
    for (std::size_t i = 0; i < made.probability.size(); ++i) {
      made.probability[i] += share * (next.probability[i] - made.probability[i]);
    }
    *mask = wrap(std::make_shared<const Mask>(std::move(made)));
  });
}

avsbg_status avsbg_frame_resize(const avsbg_model* model, const avsbg_frame* frame, uint8_t* out) {
  return guarded([&] {
    require(model, "model");
    require(frame, "frame");
    require(out, "out");
    const std::vector<std::uint8_t> fitted = fit_frame(read_structure(frame, kFrame1, "frame"), model->model->manifest());
    std::copy(fitted.begin(), fitted.end(), out);
  });
}

avsbg_status avsbg_clip_run(const avsbg_model* model, const avsbg_frame* frames, size_t count, const float* sound,
                            size_t samples, avsbg_mask** masks) {
  return guarded([&] {
    require(model, "model");
    require(frames, "frames");
    require(masks, "masks");
    if (sound == nullptr) samples = 0;
    std::vector<avsbg_frame> taken;
    const std::size_t stride = frames->size;  // of the caller's array
    for (std::size_t i = 0; i < std::min<std::size_t>(count, 4097); ++i) {
      const auto* const at = reinterpret_cast<const avsbg_frame*>(reinterpret_cast<const char*>(frames) + i * stride);
      taken.push_back(read_structure(at, kFrame1, "frame"));
    }
    const std::vector<MaskPointer> found = run_clip(*model->model, taken, sound, samples);
    std::vector<std::unique_ptr<avsbg_mask>> wrapped;
    for (const MaskPointer& mask : found) wrapped.emplace_back(wrap(mask));
    for (std::size_t i = 0; i < wrapped.size(); ++i) masks[i] = wrapped[i].release();
  });
}

avsbg_status avsbg_stream_open(const avsbg_model* model, const avsbg_stream_options* options, avsbg_stream** stream) {
  return guarded([&] {
    require(model, "model");
    require(stream, "stream");
    *stream = nullptr;
    const avsbg_stream_options given = read_structure(options, kStreamOptions1, "options");
    if (!model->model->encode) throw argument_error("the model was not opened for streams.", "Open it with AVSBG_STREAMS in `uses`.");
    StreamOptions taken;
    taken.zero_latency = given.zero_latency != 0;
    taken.published_spacing = given.published_spacing != 0;
    taken.logits = given.logits != 0;
    if (taken.logits && !model->model->manifest().labels.empty()) {
      throw argument_error("a network of classes has a map of logits for each, and masks hold one.");
    }
    taken.max_gap = optional(given.max_gap).value_or(taken.max_gap);
    taken.patience = optional(given.patience).value_or(taken.patience);
    taken.frame_offset = optional(given.frame_offset);
    *stream = new avsbg_stream{Stream(model->model, taken)};
  });
}

avsbg_status avsbg_stream_push(avsbg_stream* stream, const avsbg_frame* frame, const double* time) {
  return guarded([&] {
    require(stream, "stream");
    require(frame, "frame");
    stream->stream.push(read_structure(frame, kFrame1, "frame"), optional(time));
  });
}

avsbg_status avsbg_stream_push_sound(avsbg_stream* stream, const float* sound, size_t samples, int32_t rate,
                                     const double* time) {
  return guarded([&] {
    require(stream, "stream");
    if (samples > 0) require(sound, "sound");
    stream->stream.push_sound(sound, samples, rate, optional(time));
  });
}

avsbg_status avsbg_stream_poll(avsbg_stream* stream, avsbg_mask** mask) {
  return guarded([&] {
    require(stream, "stream");
    require(mask, "mask");
    *mask = nullptr;
    if (stream->stream.masks.empty()) return;
    *mask = wrap(stream->stream.masks.front());
    stream->stream.masks.pop_front();
  });
}

avsbg_status avsbg_stream_cut(avsbg_stream* stream) {
  return guarded([&] {
    require(stream, "stream");
    stream->stream.cut();
  });
}

avsbg_status avsbg_stream_finish(avsbg_stream* stream) {
  return guarded([&] {
    require(stream, "stream");
    stream->stream.finish();
  });
}

avsbg_status avsbg_stream_get_counters(const avsbg_stream* stream, avsbg_stream_counters* counters) {
  return guarded([&] {
    require(stream, "stream");
    write_structure(stream->stream.counters(), kCounters1, counters, "counters");
  });
}

void avsbg_stream_close(avsbg_stream* stream) { delete stream; }

avsbg_status avsbg_verify(const avsbg_model* model, double tolerance, avsbg_comparison_callback callback, void* user,
                          int32_t* passed) {
  return guarded([&] {
    require(model, "model");
    require(passed, "passed");
    *passed = verify(*model->model, tolerance, callback, user);
  });
}
