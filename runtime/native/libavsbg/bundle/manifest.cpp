#include "bundle/manifest.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "bundle/schema.h"
#include "error.h"

namespace avsbg {
namespace {

const char* const kRemake = "Restore the file as `avsbg export` wrote it, or export the bundle again.";
// TensorRT counts a tensor's elements in 32 bits, and no clip comes near it.
constexpr std::int64_t kMaxElements = 2147483647;
// Values that nest deeper are no manifest; nlohmann's writer of messages recurses.
constexpr int kMaxDepth = 32;

struct DTypeName {
  const char* name;
  std::size_t size;
};
constexpr std::array<DTypeName, 7> kDTypes = {
    {{"bool", 1}, {"uint8", 1}, {"int32", 4}, {"int64", 8}, {"float16", 2}, {"float32", 4}, {"float64", 8}}};

DType parse_dtype(const std::string& name) {
  for (std::size_t i = 0; i < kDTypes.size(); ++i) {
    if (name == kDTypes[i].name) return static_cast<DType>(i);
  }
  throw bundle_error("unknown dtype " + name);  // the schema lists them
}

// The problem of a shape, before anything is allocated for it; "" where there is none. Symbols count as 1.
std::string shape_problem(const std::vector<std::int64_t>& shape) {
  std::int64_t elements = 1;
  for (const std::int64_t size : shape) {
    if (size < 0) continue;
    if (size != 0 && elements > kMaxElements / size) {
      return "has more than " + std::to_string(kMaxElements) + " elements";
    }
    elements *= size;
  }
  return "";
}

bool is_relative_path(const std::string& path) {
  if (path.find_first_of(std::string("\\:\0", 3)) != std::string::npos) return false;
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = path.find('/', begin);
    const std::string part = path.substr(begin, end == std::string::npos ? end : end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    if (end == std::string::npos) return true;
    begin = end + 1;
  }
}

class Reader {
 public:
  explicit Reader(const Json& document) : document_(document) {}

  Manifest read() {
    Manifest manifest;
    manifest.name = document_["name"];
    const Json& variant = document_["variant"];
    manifest.network = variant.contains("network") && variant["network"].is_string() ? variant["network"] : Json("");
    manifest.mixes_frames = text(document_, "mixes_frames");
    read_clip(manifest, document_["clip"]);
    manifest.frame_offset =
        document_.value("preprocessing", Json::object()).value("frame_offset", 15.0 / 16.0);
    if (document_.contains("labels")) manifest.labels = document_["labels"].get<std::vector<std::string>>();
    for (const auto& [name, file] : document_["files"].items()) {
      if (!is_relative_path(name)) problem("files: '" + name + "' is not a relative POSIX path inside the bundle");
      manifest.files[name] = {file["sha256"], file["bytes"]};
    }
    for (const auto& [name, graph] : document_["graphs"].items()) manifest.graphs[name] = read_graph(name, graph);
    for (const Json& vectors : document_.value("vectors", Json::array())) {
      use(vectors["file"]);
      manifest.vectors.push_back(
          {vectors["file"], vectors["clips"], tensors(vectors["inputs"]), tensors(vectors["outputs"])});
      tensors(vectors.value("intermediates", Json::array()));
    }
    const Json engines = document_.value("engines", Json::object());
    for (const auto& [name, engine] : engines.items()) {
      manifest.engines[name] = read_engine(name, engine, manifest);
    }
    read_weights(document_["weights"]);
    if (manifest.files.count("manifest.json")) problem("files must not list manifest.json itself");
    for (const std::string& file : used_) {
      if (!manifest.files.count(file)) problem("not listed under files, though used: " + file);
    }
    bool fed = false;
    for (const auto& [name, graph] : manifest.graphs) fed = fed || graph.input(manifest.audio) != nullptr;
    manifest.uses_audio = fed && !(variant.contains("audio") && variant["audio"] == false);
    return manifest;
  }

 private:
  [[noreturn]] static void problem(const std::string& text) { throw std::invalid_argument(text); }

  static std::string text(const Json& object, const char* name) {
    return object.contains(name) && object[name].is_string() ? object[name].get<std::string>() : "";
  }

  void use(const std::string& file) {
    if (!is_relative_path(file)) problem("'" + file + "' is not a relative POSIX path inside the bundle");
    used_.insert(file);
  }

  static void read_clip(Manifest& manifest, const Json& clip) {
    manifest.frames = clip["frames"];
    manifest.height = clip["height"];
    manifest.width = clip["width"];
    manifest.sample_rate = clip.value("sample_rate", 16000);
    manifest.seconds_per_frame = clip.value("seconds_per_frame", 1.0);
    manifest.audio = clip["audio"];
    manifest.shared_sound = clip.value("shared_sound", false);
    const std::string wrong = shape_problem({manifest.frames, manifest.height, manifest.width, 3});
    if (!wrong.empty()) problem("a clip " + wrong);
  }

  static void read_weights(const Json& weights) {
    const bool seeded = weights.contains("seed") && !weights["seed"].is_null();
    const bool loaded = weights.contains("checkpoints") && !weights["checkpoints"].empty();
    if (seeded == loaded) problem("weights come from either a seed or checkpoints, and exactly one of the two");
  }

  static std::vector<TensorRecord> tensors(const Json& list) {
    std::vector<TensorRecord> found;
    for (const Json& each : list) {
      TensorRecord tensor;
      tensor.name = each["name"];
      tensor.dtype = parse_dtype(each["dtype"]);
      for (const Json& dimension : each["shape"]) {
        tensor.shape.push_back(dimension.is_string() ? -1 : dimension.get<std::int64_t>());
        tensor.symbols.push_back(dimension.is_string() ? dimension.get<std::string>() : "");
      }
      const std::string wrong = shape_problem(tensor.shape);
      if (!wrong.empty()) problem("the tensor " + tensor.name + " " + wrong);
      found.push_back(tensor);
    }
    return found;
  }

  static std::vector<TensorRecord> unique(const char* kind, const Json& list) {
    const std::vector<TensorRecord> found = tensors(list);
    std::set<std::string> names;
    for (const TensorRecord& tensor : found) {
      if (!names.insert(tensor.name).second) problem(std::string(kind) + " names repeat: " + tensor.name);
    }
    return found;
  }

  static std::optional<AccuracyRecord> accuracy(const Json& record) {
    if (!record.contains("accuracy") || record["accuracy"].is_null()) return std::nullopt;
    const Json& from = record["accuracy"];
    AccuracyRecord found;
    found.miou = from["miou"];
    found.min_miou = from["least_miou"];
    found.flipped = from["flipped"];
    found.passed = from["passed"];
    found.emulated = from.value("emulated", false);
    if (from.contains("judged_on") && !from["judged_on"].is_null()) found.measured_clips = from["judged_on"]["clips"];
    if (from.contains("vectors_miou") && !from["vectors_miou"].is_null()) found.vectors_miou = from["vectors_miou"];
    return found;
  }

  GraphRecord read_graph(const std::string&, const Json& from) {
    GraphRecord graph;
    graph.file = from["file"];
    use(graph.file);
    graph.external_data = from.value("external_data", Json::array()).get<std::vector<std::string>>();
    for (const std::string& file : graph.external_data) use(file);
    if (!text(from, "unmerged").empty()) use(from["unmerged"]);
    graph.operator_form = from["operator"];
    graph.precision = from.value("precision", "fp32");
    graph.has_rest = !text(from, "rest").empty();
    graph.accuracy = accuracy(from);
    graph.inputs = unique("input", from["inputs"]);
    graph.outputs = unique("output", from["outputs"]);
    return graph;
  }

  EngineRecord read_engine(const std::string& name, const Json& from, const Manifest& manifest) {
    EngineRecord engine;
    engine.file = from["file"];
    use(engine.file);
    use(from["layers_file"]);
    if (!text(from, "parsed_file").empty()) use(from["parsed_file"]);
    engine.graph = from["graph"];
    if (!manifest.graphs.count(engine.graph)) {
      problem("the engine " + name + " was built from the graph '" + engine.graph + "', which is not listed");
    }
    engine.backend = from["backend"];
    engine.operator_form = from["operator"];
    engine.precision = from["precision"];
    engine.rest = text(from, "rest");
    engine.compute_capabilities = from["device"]["compute_capabilities"].get<std::vector<int>>();
    engine.accuracy = accuracy(from);
    for (const auto& [input, shapes] : from["profile"].items()) {
      for (const char* const end : {"smallest", "optimal", "largest"}) {
        const std::string wrong = shape_problem(shapes[end].get<std::vector<std::int64_t>>());
        if (!wrong.empty()) problem("a shape of the profile " + wrong);
      }
    }
    const Json& first = from["profile"].front();  // every input begins with the number of clips
    for (const char* const end : {"smallest", "optimal", "largest"}) {
      engine.clips.push_back(first[end][0]);
    }
    const bool has_plugin = from.contains("plugin") && !from["plugin"].is_null();
    if (has_plugin == (engine.operator_form == "plain")) {
      problem("an engine has a plugin record exactly if its operator is the plugin");
    }
    if (has_plugin) engine.plugin_sha256 = from["plugin"]["sha256"];
    engine.document = from.dump();
    return engine;
  }

  const Json& document_;
  std::set<std::string> used_;
};

// Refuses what nests too deeply, before any function that recurses sees it.
class DepthLimit {
 public:
  bool operator()(int depth, Json::parse_event_t, Json&) {
    if (depth > kMaxDepth) throw bundle_error("it nests deeper than " + std::to_string(kMaxDepth) + " levels");
    return true;
  }
};

}  // namespace

std::size_t size_of(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)].size; }
const char* name_of(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)].name; }

std::vector<std::int64_t> TensorRecord::single_shape() const {
  std::vector<std::int64_t> sizes = shape;
  std::replace(sizes.begin(), sizes.end(), std::int64_t{-1}, std::int64_t{1});
  return sizes;
}

std::string TensorRecord::describe() const {
  std::string sizes;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    sizes += (i ? ", " : "") + (symbols[i].empty() ? std::to_string(shape[i]) : symbols[i]);
  }
  return std::string(name_of(dtype)) + " [" + sizes + "]";
}

namespace {
const TensorRecord* find(const std::vector<TensorRecord>& tensors, const std::string& name) {
  for (const TensorRecord& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}
}  // namespace

const TensorRecord* GraphRecord::input(const std::string& name) const { return find(inputs, name); }
const TensorRecord* GraphRecord::output(const std::string& name) const { return find(outputs, name); }

Manifest parse_manifest(const std::string& text, const std::string& path) {
  if (text.size() > kMaxManifestBytes) {
    throw bundle_error(path + " has " + std::to_string(text.size()) + " bytes; a manifest has at most " +
                       std::to_string(kMaxManifestBytes) + ".");
  }
  Json document;
  try {
    document = Json::parse(text, DepthLimit());
  } catch (const std::exception& error) {
    throw bundle_error(path + " cannot be read as JSON: " + error.what() + ".", kRemake);
  }
  const Json format = document.is_object() ? document.value("format", Json()) : Json();
  if (!format.is_number_integer() || format != 1) {
    throw bundle_error(path + " has format " + format.dump() + ", this version of avsbg reads format 1.",
                       "Export the bundle again, or install the version of avsbg that made it.");
  }
  std::vector<std::string> problems = find_problems(document);
  if (problems.empty()) {
    try {
      return Reader(document).read();
    } catch (const std::invalid_argument& error) {
      problems.push_back(error.what());
    }
  }
  std::string told = problems[0];
  for (std::size_t i = 1; i < std::min<std::size_t>(problems.size(), 3); ++i) told += "; " + problems[i];
  if (problems.size() > 3) told += "; and " + std::to_string(problems.size() - 3) + " more";
  throw bundle_error(path + " is not a valid manifest: " + told + ".", kRemake);
}

const std::vector<std::string>& precision_names() {
  static const std::vector<std::string> names =
      manifest_schema().at("/$defs/GraphRecord/properties/precision/enum"_json_pointer);
  return names;
}

}  // namespace avsbg
