#include "inference/session.h"

#include <cstring>
#include <future>
#include <utility>

#include "error.h"
#include "inference/engine.h"
#include "inference/plugin.h"

namespace avsbg {
namespace {

avsbg_tensor describe(const TensorRecord& record, const std::vector<std::int64_t>& shape) {
  if (shape.size() > AVSBG_MAX_RANK) throw backend_error(record.name + " has more dimensions than a backend takes.");
  avsbg_tensor tensor{};
  tensor.name = record.name.c_str();
  tensor.dtype = static_cast<std::int32_t>(record.dtype);
  tensor.rank = static_cast<std::int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), tensor.shape);
  tensor.bytes = size_of(record.dtype);
  for (const std::int64_t size : shape) tensor.bytes *= static_cast<std::size_t>(size < 0 ? 1 : size);
  return tensor;
}

std::vector<avsbg_tensor> contract_of(const std::vector<TensorRecord>& records) {
  std::vector<avsbg_tensor> tensors;
  for (const TensorRecord& record : records) tensors.push_back(describe(record, record.shape));
  return tensors;
}

const char* text_or_null(const std::string& text) { return text.empty() ? nullptr : text.c_str(); }

std::string list(const std::vector<TensorRecord>& records) {
  std::string names;
  for (const TensorRecord& record : records) names += (names.empty() ? "" : ", ") + record.name;
  return names;
}

std::string shown(const Array& array) {
  std::string sizes;
  for (const std::int64_t size : array.shape) sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
  return std::string(name_of(array.dtype)) + " [" + sizes + "]";
}

// Checks an array against the contract; sizes of symbols are collected in, and held against, `symbols`.
void check(const Array& array, const TensorRecord& record, std::map<std::string, std::int64_t>& symbols) {
  bool matches = array.dtype == record.dtype && array.shape.size() == record.shape.size();
  for (std::size_t i = 0; matches && i < array.shape.size(); ++i) {
    const std::string& symbol = record.symbols[i];
    const std::int64_t wanted = symbol.empty() ? record.shape[i] : symbols.emplace(symbol, array.shape[i]).first->second;
    matches = array.shape[i] == wanted;
  }
  if (!matches) {
    throw backend_error("the input " + record.name + " is " + shown(array) + "; the graph's contract is " +
                        record.describe() + ".");
  }
}

struct Choice {
  std::string graph, implementation;
};

// The graph and the implementation of the operator that a user's words mean on ONNX Runtime.
Choice choose_graph(const Bundle& bundle, const std::string& role, const BackendSpec& spec) {
  GraphName name = GraphName::parse(role);
  std::string implementation = spec.implementation;
  if (implementation == "efficient" || implementation == "published" || implementation == "plugin") {
    throw backend_error("the backend " + spec.backend + " has no implementation '" + implementation + "' of the operator.",
                        "It has: function, native, plain.");
  }
  if (implementation == "plain" && bundle.graph(role).operator_form != "plain") name.is_plain = true;
  if (!spec.precision.empty() && bundle.graph(name.text()).precision != spec.precision) {
    if (spec.precision == "tf32") {
      throw backend_error("ONNX Runtime has no tf32 on the processor.", "Leave the precision out, or ask for fp32.");
    }
    name.precision = spec.precision;
    if (!bundle.manifest().graphs.count(name.text())) {
      throw backend_error(bundle.path() + " has no graph '" + name.text() + "'.",
                          "Make it with `avsbg convert " + bundle.path() + " --precision " + spec.precision + "`.");
    }
  }
  const GraphRecord& contract = bundle.graph(name.text());
  if (implementation.empty()) implementation = contract.operator_form == "plain" ? "plain" : "function";
  if ((implementation == "plain") != (contract.operator_form == "plain")) {
    throw backend_error("the graph " + name.text() + " holds no custom operator, so the implementation " +
                        implementation + " has nothing to execute.");
  }
  return {name.text(), implementation};
}

}  // namespace

std::string SessionOptions::folder() const { return backend_folder.empty() ? library_folder() : backend_folder; }

Tensor::Tensor(const Session* session, void* handle, Array array)
    : array_(std::move(array)), session_(session), handle_(handle) {}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
  std::swap(array_, other.array_);
  std::swap(session_, other.session_);
  std::swap(handle_, other.handle_);
  return *this;
}

Tensor::~Tensor() {
  if (handle_ != nullptr) session_->table_->release(session_->session_, handle_);
}

const void* Tensor::device_memory() const {
  if (handle_ == nullptr || session_->table_->device_memory == nullptr) return nullptr;
  return session_->table_->device_memory(session_->session_, handle_);
}

Tensor Tensor::detach() { return Tensor(session_, std::exchange(handle_, nullptr), {array_.dtype, array_.shape, {}}); }

Session::Session(const Bundle& bundle, const std::string& role, const SessionOptions& options) {
  const BackendSpec& spec = options.spec;
  const EngineRecord* engine = nullptr;
  std::string judged;
  if (spec.backend == "onnxruntime" || spec.backend == "onnxruntime-cuda") {
    if (!options.engine.empty()) throw backend_error("the backend " + spec.backend + " loads no engines.");
    if (!spec.rest.empty()) throw backend_error("the backend " + spec.backend + " has no option 'rest'.");
    const Choice choice = choose_graph(bundle, role, spec);
    graph_ = choice.graph;
    implementation_ = choice.implementation;
    accuracy_ = bundle.accuracy(graph_);
    precision_ = bundle.graph(graph_).precision;
    judged = "the graph " + graph_;
  } else if (spec.backend == "tensorrt" || spec.backend == "tensorrt-rtx") {
    const std::string name = choose_engine(bundle, role, options, [&] {
      open_backend(options);
      return table_->compute_capability == nullptr ? 0 : table_->compute_capability(options.device);
    });
    engine = &bundle.manifest().engines.at(name);
    graph_ = engine->graph;
    implementation_ = engine->operator_form;
    accuracy_ = engine->accuracy ? &*engine->accuracy : role == "clip" ? nullptr : bundle.accuracy(graph_);
    precision_ = engine->precision;
    judged = "the engine " + name;
    description_["engine"] = name;
  } else {
    throw backend_error("unknown backend '" + spec.backend + "' of libavsbg.",
                        "Choose one of: onnxruntime, onnxruntime-cuda, tensorrt, tensorrt-rtx.");
  }
  contract_ = &bundle.graph(graph_);
  if (accuracy_ != nullptr || engine != nullptr) {
    description_.update(check_accuracy(judged, accuracy_, options.ignore_accuracy));
  }
  open(bundle, options, engine);
}

void Session::open_backend(const SessionOptions& options) {
  const std::string& backend = options.spec.backend;
  const Plugin plugin = open_plugin(backend == "onnxruntime-cuda" ? "onnxruntime" : backend, options.folder());
  library_ = plugin.library;
  table_ = plugin.table;
}

void Session::open(const Bundle& bundle, const SessionOptions& options, const EngineRecord* engine) {
  if (options.threads < 0) throw backend_error("threads must be at least 1, not " + std::to_string(options.threads) + ".");
  open_backend(options);
  const std::string folder = options.folder();
  const std::string& backend = options.spec.backend;
  const std::vector<avsbg_tensor> inputs = contract_of(contract_->inputs), outputs = contract_of(contract_->outputs);
  const std::string& file = engine != nullptr ? engine->file : contract_->file;
  const std::string path = bundle.file(file), content = bundle.read(file);
  const std::vector<std::string> names = engine != nullptr ? std::vector<std::string>() : contract_->external_data;
  const std::string graph_folder = file.substr(0, file.rfind('/') + 1);  // npos + 1 is 0
  std::vector<std::string> contents;
  for (const std::string& name : names) contents.push_back(bundle.read_unchecked(name));
  std::vector<avsbg_file> external;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const bool beside = names[i].rfind(graph_folder, 0) == 0;
    external.push_back({names[i].c_str() + (beside ? graph_folder.size() : 0), contents[i].data(), contents[i].size()});
  }
  const std::string rebuild = engine == nullptr ? "" : rebuild_hint(bundle, *engine);
  if (engine != nullptr) {
    check_engine(path, content, *engine, options.trust, rebuild);
    check_plugin(path, *engine, folder, rebuild);
  }
  avsbg_session_request request{};
  request.file = path.c_str();
  request.content = {file.c_str(), content.data(), content.size()};
  request.external_data = external.data();
  request.external_count = external.size();
  request.engine_record = engine == nullptr ? nullptr : engine->document.c_str();
  request.rebuild = rebuild.c_str();
  request.backend = backend.c_str();
  request.implementation = implementation_.c_str();
  request.precision = precision_.c_str();
  request.has_rest = contract_->has_rest;
  request.threads = options.threads;
  request.device = options.device;
  request.runtime_library = text_or_null(options.runtime_library);
  request.library_folder = folder.c_str();
  request.inputs = inputs.data();
  request.outputs = outputs.data();
  request.input_count = inputs.size();
  request.output_count = outputs.size();
  const auto description = std::make_unique<avsbg_text>(), error = std::make_unique<avsbg_text>();
  // Weights are numbers that the session copies: they are hashed meanwhile, and nothing runs before that has ended.
  std::future<void> checked = std::async(std::launch::async, [&] {
    for (std::size_t i = 0; i < names.size(); ++i) bundle.check(names[i], contents[i]);
  });
  const std::int32_t status = table_->open(&request, &session_, description.get(), error.get());
  try {
    checked.get();
  } catch (...) {
    if (session_ != nullptr) table_->close(session_);
    throw;
  }
  if (status != 0) throw backend_error(error->data);
  description_.update(nlohmann::json::parse(description->data));
  description_["backend"] = backend;
  description_["graph"] = graph_;
  description_["operator"] = implementation_;
  description_["precision"] = precision_;
}

Session::~Session() {
  if (session_ != nullptr) table_->close(session_);
}

Tensors Session::run(const std::map<std::string, const Tensor*>& inputs, const std::vector<std::string>& outputs,
                     Place place) const {
  std::map<std::string, std::int64_t> symbols;
  std::vector<avsbg_tensor> given, wanted;
  for (const TensorRecord& record : contract_->inputs) {
    const auto found = inputs.find(record.name);
    if (found == inputs.end() || inputs.size() != contract_->inputs.size()) {
      throw backend_error("the graph " + graph_ + " takes the inputs " + list(contract_->inputs) + ".");
    }
    const Tensor& tensor = *found->second;
    check(tensor.array(), record, symbols);
    given.push_back(describe(record, tensor.array().shape));
    // Shapes are the graph's, but buffers are made by the manifest's description of a clip, which may differ.
    if (tensor.handle() == nullptr && tensor.array().bytes.size() != given.back().bytes) {
      throw backend_error("the input " + record.name + " has " + std::to_string(tensor.array().bytes.size()) +
                          " bytes; the graph's contract is " + record.describe() + ".");
    }
    given.back().data = const_cast<std::uint8_t*>(tensor.array().bytes.data());
    given.back().handle = tensor.handle();
  }
  const bool keep = place == Place::kSession || (place == Place::kBoth && table_->device_memory != nullptr);
  std::vector<Array> arrays;
  for (const std::string& name : outputs) {
    const TensorRecord* const record = contract_->output(name);
    if (record == nullptr) {
      throw backend_error("the graph " + graph_ + " has no output '" + name + "'.", "It has: " + list(contract_->outputs) + ".");
    }
    Array array{record->dtype, record->shape, {}};
    for (std::size_t i = 0; i < array.shape.size(); ++i) {
      if (!record->symbols[i].empty()) array.shape[i] = symbols.count(record->symbols[i]) ? symbols[record->symbols[i]] : 1;
    }
    wanted.push_back(describe(*record, array.shape));
    if (place != Place::kSession) array.bytes.resize(wanted.back().bytes);
    wanted.back().data = place == Place::kSession ? nullptr : array.bytes.data();
    wanted.back().keep = keep;
    arrays.push_back(std::move(array));
  }
  const auto error = std::make_unique<avsbg_text>();
  if (table_->run(session_, given.data(), given.size(), wanted.data(), wanted.size(), error.get()) != 0) {
    throw backend_error(error->data);
  }
  Tensors results;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    results[outputs[i]] = Tensor(this, wanted[i].handle, std::move(arrays[i]));
  }
  return results;
}

}  // namespace avsbg
