// Stands for libnvinfer: its "engine" is a text that says which graph the fake executes, with the backend for ONNX
// Runtime, on the memory that it is told of. Every method that the backend has no business with ends the process: they
// are in unexpected.h, which the test writes from TensorRT's headers.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "fake.h"
#include "inference/backend_api.h"
#include "unexpected.h"

using namespace nvinfer1;
using Shape = std::vector<std::int64_t>;

namespace {

constexpr DataType kTypes[] = {DataType::kBOOL,  DataType::kUINT8, DataType::kINT32,
                               DataType::kINT64, DataType::kHALF,  DataType::kFLOAT};
constexpr std::size_t kSizes[] = {1, 1, 4, 8, 2, 4};

Dims dims_of(const Shape& shape) {
  Dims dims{};
  dims.nbDims = static_cast<std::int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), dims.d);
  return dims;
}

template <class Interface, class Implementation>
struct Object final : Interface {
  template <class... Values>
  explicit Object(Values&&... values) : owned(std::forward<Values>(values)...) {
    this->mImpl = &owned;
  }
  Implementation owned;
};

struct Engine;

struct Context : apiv::UnexpectedExecutionContext {
  explicit Context(const Engine& engine) : engine_(engine) {}

  std::int32_t getOptimizationProfile() const noexcept override { return profile_; }
  bool setOptimizationProfileAsync(std::int32_t profile, cudaStream_t) noexcept override {
    profile_ = profile;
    shapes_.clear();
    addresses_.clear();
    return changed();
  }
  bool setTensorAddress(const char* name, void* memory) noexcept override {
    addresses_[name] = memory;
    return true;
  }
  bool setInputShape(const char* name, const Dims& dims) noexcept override;
  std::int32_t inferShapes(std::int32_t, const char**) noexcept override;
  Dims getTensorShape(const char* name) const noexcept override { return dims_of(shape(name)); }
  bool enqueueV3(cudaStream_t stream) noexcept override;
#ifdef TRT_MAJOR_RTX
  // Kernels that are still being compiled: no, the first time after each change.
  bool isStreamCapturable(cudaStream_t) const noexcept override { return std::exchange(is_compiled_, true); }
#endif

 private:
  bool changed() {
    ++changes_;
    is_warm_ = false;
#ifdef TRT_MAJOR_RTX
    is_compiled_ = false;
#endif
    return true;
  }
  Shape shape(const std::string& name) const;
  void execute() const;

  const Engine& engine_;
  std::map<std::string, void*> addresses_;
  std::map<std::string, Shape> shapes_;
  int profile_ = 0, changes_ = 0;
  bool is_warm_ = false;
  mutable bool is_compiled_ = true;  // false for a step that may not be captured yet
};

struct Engine : apiv::UnexpectedCudaEngine {
  explicit Engine(const nlohmann::json& text) : document(text) {
    const auto library = dlopen(document["backend"].get<std::string>().c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) fake_violation("%s", dlerror());
    table = reinterpret_cast<avsbg_backend_function>(dlsym(library, "avsbg_backend"))();
    const std::string file = document["graph"], runtime = document["runtime"];
    std::FILE* const graph = std::fopen(file.c_str(), "rb");
    std::vector<char> bytes(document["bytes"].get<std::size_t>());
    if (std::fread(bytes.data(), 1, bytes.size(), graph) != bytes.size()) fake_violation("%s cannot be read", file.c_str());
    std::fclose(graph);
    avsbg_session_request request{};
    request.file = file.c_str();
    request.content = {file.c_str(), bytes.data(), bytes.size()};
    request.backend = "onnxruntime";
    request.implementation = "function";
    request.precision = "fp32";
    request.threads = 1;
    request.runtime_library = runtime.c_str();
    avsbg_text description{}, error{};
    if (table->open(&request, &session, &description, &error) != 0) fake_violation("%s", error.data);
  }
  ~Engine() override { table->close(session); }

  const nlohmann::json& tensor(const std::string& name) const {
    for (const nlohmann::json& one : document["tensors"]) {
      if (one["name"] == name) return one;
    }
    fake_violation("no tensor is called %s", name.c_str());
  }

  std::int32_t getNbIOTensors() const noexcept override { return static_cast<std::int32_t>(document["tensors"].size()); }
  std::int32_t getNbOptimizationProfiles() const noexcept override { return static_cast<std::int32_t>(document["counts"].size()); }
  Dims getTensorShape(const char* name) const noexcept override { return dims_of(tensor(name)["shape"]); }
  DataType getTensorDataType(const char* name) const noexcept override { return kTypes[tensor(name)["type"].get<int>()]; }
  TensorLocation getTensorLocation(const char*) const noexcept override { return TensorLocation::kDEVICE; }
  TensorIOMode getTensorIOMode(const char* name) const noexcept override {
    return tensor(name)["input"] == true ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  Dims getProfileShape(const char* name, std::int32_t profile, OptProfileSelector which) const noexcept override {
    Shape shape = tensor(name)["shape"];
    for (std::int64_t& size : shape) {
      if (size < 0) size = document["counts"][static_cast<std::size_t>(profile)][static_cast<std::size_t>(which)];
    }
    return dims_of(shape);
  }
  IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy) noexcept override {
    return new Object<IExecutionContext, Context>(*this);
  }

  nlohmann::json document;
  const avsbg_backend_table* table = nullptr;
  void* session = nullptr;
};

bool Context::setInputShape(const char* name, const Dims& dims) noexcept {
  const Dims low = engine_.getProfileShape(name, profile_, OptProfileSelector::kMIN);
  const Dims high = engine_.getProfileShape(name, profile_, OptProfileSelector::kMAX);
  for (std::int32_t d = 0; d < dims.nbDims; ++d) {
    if (dims.nbDims != low.nbDims || dims.d[d] < low.d[d] || dims.d[d] > high.d[d]) return false;
  }
  shapes_[name] = Shape(dims.d, dims.d + dims.nbDims);
  return changed();
}

std::int32_t Context::inferShapes(std::int32_t, const char**) noexcept {
  for (const nlohmann::json& one : engine_.document["tensors"]) {
    if (one["input"] == true && shapes_.count(one["name"]) == 0) return 1;
  }
  return 0;
}

Shape Context::shape(const std::string& name) const {
  const auto found = shapes_.find(name);
  if (found != shapes_.end()) return found->second;
  Shape shape = engine_.tensor(name)["shape"];
  for (std::int64_t& size : shape) {
    if (size < 0) size = shapes_.begin()->second[0];  // the number of clips, with which every input begins
  }
  return shape;
}

bool Context::enqueueV3(cudaStream_t stream) noexcept {
  if (inferShapes(1, nullptr) != 0 || addresses_.size() != engine_.document["tensors"].size()) {
    fake_violation("enqueueV3 before all shapes and addresses are set: %zu", addresses_.size());
  }
  if (fake_is_capturing(stream) && !is_warm_) fake_violation("a step is captured that has not run before%s", "");
  if (fake_is_capturing(stream) && !is_compiled_) fake_violation("a step is captured that is still compiled%s", "");
  is_warm_ = true;
  fake_enqueue(stream, [this, changes = changes_] {
    if (changes != changes_) fake_violation("a graph is launched after its execution context was changed%s", "");
    execute();
  });
  return true;
}

void Context::execute() const {
  std::vector<avsbg_tensor> inputs, outputs;
  for (const nlohmann::json& one : engine_.document["tensors"]) {
    avsbg_tensor tensor{};
    const Shape sizes = shape(one["name"]);
    tensor.name = one["name"].get_ref<const std::string&>().c_str();
    tensor.dtype = one["type"];
    tensor.rank = static_cast<std::int32_t>(sizes.size());
    tensor.bytes = kSizes[tensor.dtype];
    for (std::size_t d = 0; d < sizes.size(); ++d) tensor.bytes *= static_cast<std::size_t>(tensor.shape[d] = sizes[d]);
    tensor.data = addresses_.at(tensor.name);
    fake_check_device(tensor.data, tensor.bytes);
    (one["input"] == true ? inputs : outputs).push_back(tensor);
  }
  avsbg_text error{};
  if (engine_.table->run(engine_.session, inputs.data(), inputs.size(), outputs.data(), outputs.size(), &error) != 0) {
    fake_violation("%s", error.data);
  }
}

struct Registry : UnexpectedPluginRegistry {
  IPluginCreatorInterface* getCreator(const char*, const char*, const char*) noexcept override {
    return is_loaded ? reinterpret_cast<IPluginCreatorInterface*>(this) : nullptr;
  }
  PluginLibraryHandle loadLibrary(const char* path) noexcept override {
    if (std::FILE* const file = std::fopen(path, "rb")) {
      std::fclose(file);
      is_loaded = true;
      return this;
    }
    return nullptr;
  }
  bool is_loaded = false;
} registry;

struct Runtime : apiv::UnexpectedRuntime {
  explicit Runtime(ILogger& logger) : logger_(logger) {}
  ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t size) noexcept override {
    const std::string text(static_cast<const char*>(blob), size);
    const nlohmann::json document = nlohmann::json::parse(text.substr(4), nullptr, false);
    if (document.is_discarded() || (document["plugin"] == true && !registry.is_loaded)) {
      logger_.log(ILogger::Severity::kERROR, document.is_discarded() ? "no plan" : "no plugin creator");
      return nullptr;
    }
    return new Object<ICudaEngine, Engine>(document);
  }

 private:
  ILogger& logger_;
};

}  // namespace

extern "C" __attribute__((visibility("default"))) void* createInferRuntime_INTERNAL(void* logger, std::int32_t version) noexcept {
  if (version != getInferLibVersion()) return nullptr;
  return new Object<IRuntime, Runtime>(*static_cast<ILogger*>(logger));
}
extern "C" __attribute__((visibility("default"))) IPluginRegistry* getPluginRegistry() noexcept { return &registry; }
extern "C" __attribute__((visibility("default"))) std::int32_t getInferLibVersion() noexcept {
  const char* const version = std::getenv("FAKE_TENSORRT_VERSION");
  return version == nullptr ? FAKE_VERSION : std::atoi(version);
}
