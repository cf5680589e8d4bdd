// The manifest of a bundle, validated: what the library needs of runtime/bundle/manifest.py's records.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace avsbg {

// Of tensors, by numpy's names in the manifest.
enum class DType { kBool, kUint8, kInt32, kInt64, kFloat16, kFloat32, kFloat64 };

std::size_t size_of(DType dtype);
const char* name_of(DType dtype);

struct TensorRecord {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;   // -1 where `symbols` has a name
  std::vector<std::string> symbols;  // of dimensions, e.g. `clips`; "" where the size is fixed

  // For one clip or one stream: 1 for each symbol.
  std::vector<std::int64_t> single_shape() const;
  std::string describe() const;
};

struct AccuracyRecord {
  double miou = 0, min_miou = 0, flipped = 0;
  bool passed = false, emulated = false;
  std::optional<std::int64_t> measured_clips;
  std::optional<double> vectors_miou;
};

struct GraphRecord {
  std::string file, operator_form, precision;
  std::vector<std::string> external_data;
  bool has_rest = false;  // a type for what a quantised graph does not quantise
  std::optional<AccuracyRecord> accuracy;
  std::vector<TensorRecord> inputs, outputs;

  const TensorRecord* input(const std::string& name) const;
  const TensorRecord* output(const std::string& name) const;
};

struct EngineRecord {
  std::string file, graph, backend, operator_form, precision;
  std::string rest;  // the type of what a quantised engine leaves out; "" is fp32
  std::vector<int> compute_capabilities;  // of the GPUs that it is for, in tenths
  std::vector<std::int64_t> clips;        // the smallest, optimal and largest number of clips or streams
  std::optional<AccuracyRecord> accuracy;
  std::string plugin_sha256;  // "" without a plugin
  std::string document;       // the whole record, JSON
};

struct VectorsRecord {
  std::string file;
  std::int64_t clips = 1;
  std::vector<TensorRecord> inputs, outputs;
};

struct FileRecord {
  std::string sha256;
  std::uint64_t bytes = 0;
};

struct Manifest {
  std::string name;
  std::string network;
  std::string mixes_frames;  // why no stream can be made; "" where one can
  int frames = 0, height = 0, width = 0, sample_rate = 0;
  std::string audio;  // the audio input's form and name
  bool shared_sound = false, uses_audio = false;
  double seconds_per_frame = 1.0, frame_offset = 0;
  std::vector<std::string> labels;
  std::map<std::string, GraphRecord> graphs;
  std::map<std::string, EngineRecord> engines;
  std::vector<VectorsRecord> vectors;
  std::map<std::string, FileRecord> files;
};

// The largest manifest that is read.
constexpr std::uint64_t kMaxManifestBytes = 4u << 20;

// Parse and validate a manifest; `path` is for messages. Throws an Error of AVSBG_ERROR_BUNDLE.
Manifest parse_manifest(const std::string& text, const std::string& path);

// Names of precisions, as manifests and users write them.
const std::vector<std::string>& precision_names();

}  // namespace avsbg
