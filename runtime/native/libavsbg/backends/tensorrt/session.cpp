#include "backends/tensorrt/session.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "backends/tensorrt/engine_record.h"

namespace avsbg_tensorrt {
namespace {

using Shape = std::vector<std::int64_t>;
using nvinfer1::DataType;

// By the number of avsbg::DType, which has float64 too, and TensorRT has not.
constexpr DataType kTypes[] = {DataType::kBOOL,  DataType::kUINT8, DataType::kINT32,
                               DataType::kINT64, DataType::kHALF,  DataType::kFLOAT};
constexpr std::size_t kSizes[] = {1, 1, 4, 8, 2, 4};

Shape read_shape(const nvinfer1::Dims& dims) { return Shape(dims.d, dims.d + std::max<std::int32_t>(dims.nbDims, 0)); }

std::string shown(const Shape& shape) {
  std::string text;
  for (const std::int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

std::size_t count_bytes(const Shape& shape, std::size_t item) {
  for (const std::int64_t size : shape) {
    const auto count = static_cast<std::size_t>(size);
    if (size < 0 || (count != 0 && item > std::numeric_limits<std::int32_t>::max() * std::size_t{8} / count)) {
      throw std::runtime_error("a tensor of the shape " + shown(shape) + " is too large");
    }
    item *= count;
  }
  return item;
}

bool fits(const Shape& shape, const Shape& low, const Shape& high) {
  bool within = shape.size() == low.size() && shape.size() == high.size();
  for (std::size_t i = 0; within && i < shape.size(); ++i) within = low[i] <= shape[i] && shape[i] <= high[i];
  return within;
}

// TensorRT for RTX says no while it still compiles kernels; TensorRT does not have the question.
template <class Context>
auto is_capturable(const Context& context, CUstream stream, int) -> decltype(context.isStreamCapturable(stream)) {
  return context.isStreamCapturable(stream);
}
template <class Context>
bool is_capturable(const Context&, CUstream, long) {
  return true;
}

}  // namespace

EngineSession::EngineSession(const avsbg_session_request& request)
    : library_(request.runtime_library), device_(request.device), file_(request.file), rebuild_(request.rebuild) {
  if (request.engine_record == nullptr) throw std::runtime_error("TensorRT runs engines, not the graph " + file_);
  record_ = nlohmann::json::parse(request.engine_record);
}

EngineSession::EngineSession(const avsbg_session_request& request, nlohmann::json& description)
    : EngineSession(request) {  // so that the destructor releases what was made before an error
  const Current current(device_);
  check_version(record_, file_, library_.version, rebuild_);
  check_device(record_, file_, device_, rebuild_);
  load(request);
  bind(request);
  description["version"] = version_text(library_.version);
  description["device"] = {{"name", device_.name()}, {"compute_capability", device_.compute_capability()}};
  description["cuda_graph"] = "where possible";
  description["contexts"] = 1;
}

EngineSession::~EngineSession() {
  try {
    const Current current(device_);
    const Driver& driver = device_.driver();
    if (stream_ != nullptr) driver.cuStreamSynchronize(stream_);
    drop_graph();
    context_.reset();  // before the memory that it was told of
    for (const Binding& binding : bindings_) {
      if (binding.memory != 0) driver.cuMemFree(binding.memory);
      if (binding.host != nullptr) driver.cuMemFreeHost(binding.host);
    }
    for (const auto& buffer : pool_) driver.cuMemFree(buffer->memory);
    engine_.reset();
    runtime_.reset();
    if (stream_ != nullptr) driver.cuStreamDestroy(stream_);
  } catch (const std::exception&) {  // the GPU no longer answers: there is nothing that could be freed
  }
}

void EngineSession::load(const avsbg_session_request& request) {
  runtime_.reset(static_cast<nvinfer1::IRuntime*>(library_.create_runtime(&logger_, library_.version)));
  if (!runtime_) fail(library_.name + " makes no runtime");
  nvinfer1::IPluginRegistry* registry = library_.plugin_registry();
  if (is_version_compatible(record_)) {
    // Such a plan brings a lean runtime along, which is host code, and does not see the registry of the library.
    runtime_->setEngineHostCodeAllowed(true);
    registry = &runtime_->getPluginRegistry();
  }
  if (registry != nullptr && !record_.value("plugin", nlohmann::json()).is_null()) {
    // TensorRT for RTX looks itself up by this name where plugins are, and ends the process where it is not found.
    if (kOwnName != nullptr && dlopen(kOwnName, RTLD_NOW | RTLD_LOCAL) == nullptr) {
      throw std::runtime_error(std::string("the loader finds no ") + kOwnName + ", which " + kProduct +
                               " needs for plugins: make a link of this name to " + library_.name +
                               " in a folder of LD_LIBRARY_PATH");
    }
    load_plugin(*registry, request.library_folder);
  }
  engine_.reset(runtime_->deserializeCudaEngine(request.content.data, request.content.bytes));
  if (!engine_) fail(std::string(kBackend) + " refuses the engine " + file_, rebuild_);
  context_.reset(engine_->createExecutionContext());
  if (!context_) fail("TensorRT cannot make an execution context (usually the GPU's memory is short)");
}

void EngineSession::load_plugin(nvinfer1::IPluginRegistry& registry, const std::string& folder) const {
  const std::vector<std::string> operators = record_["plugin"]["operators"];
  const auto missing = [&] {
    return std::find_if(operators.begin(), operators.end(), [&](const std::string& name) {
      return registry.getCreator(name.c_str(), "1", "") == nullptr;
    });
  };
  if (missing() == operators.end()) return;
  const std::string plugin = folder + "/libavsbg_tensorrt.so";
  if (registry.loadLibrary(plugin.c_str()) == nullptr || missing() != operators.end()) {
    throw std::runtime_error("the plugin library " + plugin + " cannot be used: TensorRT finds no " +
                             (missing() == operators.end() ? "operators" : *missing()) + " version 1 in it");
  }
}

void EngineSession::bind(const avsbg_session_request& request) {
  const Driver& driver = device_.driver();
  const std::string hint = "; it was not built from this bundle's graph. " + rebuild_;
  const std::size_t count = request.input_count + request.output_count;
  if (static_cast<std::size_t>(engine_->getNbIOTensors()) != count) {
    throw std::runtime_error(file_ + " has " + std::to_string(engine_->getNbIOTensors()) + " inputs and outputs; its graph has " +
                             std::to_string(count) + hint);
  }
  std::int64_t most = 1;  // clips or streams, which is what a size that is not fixed counts
  for (std::size_t i = 0; i < count; ++i) {
    const bool is_input = i < request.input_count;
    const avsbg_tensor& wanted = is_input ? request.inputs[i] : request.outputs[i - request.input_count];
    const char* const name = wanted.name;
    Binding binding;
    binding.name = name;
    binding.is_input = is_input;
    binding.largest = Shape(wanted.shape, wanted.shape + wanted.rank);
    const Shape shape = read_shape(engine_->getTensorShape(name));
    const auto mode = is_input ? nvinfer1::TensorIOMode::kINPUT : nvinfer1::TensorIOMode::kOUTPUT;
    bool same = static_cast<std::size_t>(wanted.dtype) < std::size(kTypes) && shape.size() == binding.largest.size() &&
                engine_->getTensorIOMode(name) == mode &&
                engine_->getTensorLocation(name) == nvinfer1::TensorLocation::kDEVICE &&
                engine_->getTensorDataType(name) == kTypes[wanted.dtype];
    for (std::size_t d = 0; same && d < shape.size(); ++d) same = binding.largest[d] < 0 || shape[d] == binding.largest[d];
    if (!same) {
      throw std::runtime_error("the engine " + file_ + " has " + name + " as " + shown(shape) + "; its graph has " +
                               shown(binding.largest) + ", or another type or place" + hint);
    }
    binding.item = kSizes[wanted.dtype];
    for (std::int32_t number = 0; is_input && number < engine_->getNbOptimizationProfiles(); ++number) {
      using nvinfer1::OptProfileSelector;
      const auto read = [&](OptProfileSelector which) { return read_shape(engine_->getProfileShape(name, number, which)); };
      binding.profiles.push_back({read(OptProfileSelector::kMIN), read(OptProfileSelector::kOPT), read(OptProfileSelector::kMAX)});
      const Shape& high = binding.profiles.back().largest;
      if (high.size() != shape.size()) throw std::runtime_error("the engine " + file_ + " has no profile for " + name);
      for (std::size_t d = 0; d < shape.size(); ++d) {
        if (binding.largest[d] < 0) most = std::max(most, high[d]);
      }
    }
    bindings_.push_back(std::move(binding));
  }
  driver.check(driver.cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
  for (Binding& binding : bindings_) {
    std::replace(binding.largest.begin(), binding.largest.end(), std::int64_t{-1}, most);
    const std::size_t bytes = std::max<std::size_t>(count_bytes(binding.largest, binding.item), 1);
    driver.check(driver.cuMemAlloc(&binding.memory, bytes), "cuMemAlloc");
    driver.check(driver.cuMemHostAlloc(&binding.host, bytes, 0), "cuMemHostAlloc");
  }
  set_addresses();
}

void EngineSession::set_addresses() {
  for (const Binding& binding : bindings_) {
    if (!context_->setTensorAddress(binding.name.c_str(), reinterpret_cast<void*>(binding.memory))) {
      fail("TensorRT refuses the memory for " + binding.name);
    }
  }
}

int EngineSession::choose_profile(const std::vector<Shape>& shapes) const {
  int best = -1;
  std::int64_t nearest = 0;
  for (std::size_t number = 0; number < bindings_[0].profiles.size(); ++number) {
    std::int64_t distance = 0;
    bool takes = true;
    for (std::size_t i = 0; i < shapes.size() && takes; ++i) {
      const Binding::Profile& profile = bindings_[i].profiles[number];
      takes = fits(shapes[i], profile.smallest, profile.largest) && profile.optimal.size() == shapes[i].size();
      for (std::size_t d = 0; takes && d < shapes[i].size(); ++d) distance += std::abs(shapes[i][d] - profile.optimal[d]);
    }
    if (takes && (best < 0 || distance < nearest)) {
      best = static_cast<int>(number);
      nearest = distance;
    }
  }
  if (best >= 0) return best;
  std::string takes;
  for (const Binding::Profile& profile : bindings_[0].profiles) {
    takes += (takes.empty() ? "" : " or ") + shown(profile.smallest) + " to " + shown(profile.largest);
  }
  throw std::runtime_error("the engine " + file_ + " does not take " + bindings_[0].name + " " + shown(shapes[0]) + "; it takes " +
                           takes + ". Build one for that many clips: avsbg build ... --batch-range MIN OPT MAX");
}

Binding& EngineSession::find(const char* name) {
  // The session has checked names against the contract, and bind() the contract against the engine.
  return *std::find_if(bindings_.begin(), bindings_.end(), [&](const Binding& one) { return one.name == name; });
}

void EngineSession::run(const avsbg_tensor* inputs, std::size_t input_count, avsbg_tensor* outputs,
                        std::size_t output_count) {
  const std::lock_guard<std::mutex> hold(running_);
  const Current current(device_);
  const Driver& driver = device_.driver();
  synchronize();  // a step that failed half-way may have left work behind
  Step step;
  for (std::size_t i = 0; i < input_count; ++i) {  // in the contract's order, as the first bindings are
    Binding& binding = find(inputs[i].name);
    binding.shape = Shape(inputs[i].shape, inputs[i].shape + inputs[i].rank);
    step.shapes.push_back(binding.shape);
    if (inputs[i].handle == nullptr) step.from_host.push_back(&binding);
  }
  const int profile = choose_profile(step.shapes);
  for (std::size_t i = 0; i < input_count; ++i) find(inputs[i].name).bytes = inputs[i].bytes;
  for (std::size_t i = 0; i < output_count; ++i) {
    Binding& binding = find(outputs[i].name);
    binding.bytes = outputs[i].bytes;
    if (outputs[i].data != nullptr) step.to_host.push_back(&binding);
  }
  const bool again = is_ready_ && step == step_;
  if (!again) {
    profile_ = profile;
    prepare(step);
  }
  for (std::size_t i = 0; i < output_count; ++i) {
    const Shape wanted(outputs[i].shape, outputs[i].shape + outputs[i].rank);
    const Shape shape = read_shape(context_->getTensorShape(outputs[i].name));
    if (shape != wanted) {
      throw std::runtime_error("the engine " + file_ + " returns " + outputs[i].name + " as " + shown(shape) +
                               ", and not as its contract says, " + shown(wanted));
    }
  }
  for (std::size_t i = 0; i < input_count; ++i) {
    Binding& binding = find(inputs[i].name);
    const auto* const kept = static_cast<const DeviceBuffer*>(inputs[i].handle);
    if (kept == nullptr) {
      std::memcpy(binding.host, inputs[i].data, inputs[i].bytes);
    } else if (kept->device != device_.index() || kept->bytes != inputs[i].bytes) {
      throw std::runtime_error(std::string("the input ") + inputs[i].name + " lies on another GPU or has another size");
    } else {
      driver.check(driver.cuMemcpyDtoDAsync(binding.memory, kept->memory, kept->bytes, stream_), "cuMemcpyDtoDAsync");
    }
  }
  if (again && graph_ == nullptr && can_capture_ && is_capturable(*context_, stream_, 0)) capture(step);
  if (graph_ != nullptr) driver.check(driver.cuGraphLaunch(graph_, stream_), "cuGraphLaunch");
  else enqueue(step);
  std::vector<DeviceBuffer*> kept;
  try {
    for (std::size_t i = 0; i < output_count; ++i) {
      if (!outputs[i].keep) continue;
      kept.push_back(acquire(outputs[i].bytes));
      driver.check(driver.cuMemcpyDtoDAsync(kept.back()->memory, find(outputs[i].name).memory, outputs[i].bytes, stream_),
                   "cuMemcpyDtoDAsync");
      outputs[i].handle = kept.back();
    }
    // Before anything is read: by the host, by another session's stream, or over by the next step.
    synchronize();
  } catch (...) {
    for (DeviceBuffer* const buffer : kept) release(buffer);
    throw;
  }
  for (std::size_t i = 0; i < output_count; ++i) {
    if (outputs[i].data != nullptr) std::memcpy(outputs[i].data, find(outputs[i].name).host, outputs[i].bytes);
  }
}

void EngineSession::prepare(const Step& step) {
  drop_graph();  // TensorRT allows no launch of a graph after its execution context has been changed
  is_ready_ = false;
  if (context_->getOptimizationProfile() != profile_) {
    if (!context_->setOptimizationProfileAsync(profile_, stream_)) {
      fail("TensorRT refuses the optimisation profile " + std::to_string(profile_));
    }
    synchronize();
    set_addresses();
  }
  for (std::size_t i = 0; i < step.shapes.size(); ++i) {
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<std::int32_t>(step.shapes[i].size());
    std::copy(step.shapes[i].begin(), step.shapes[i].end(), dims.d);
    if (!context_->setInputShape(bindings_[i].name.c_str(), dims)) {
      fail("TensorRT refuses " + shown(step.shapes[i]) + " as the shape of " + bindings_[i].name);
    }
  }
  const char* missing = nullptr;
  if (context_->inferShapes(1, &missing) != 0) fail("TensorRT does not know the shape of " + std::string(missing ? missing : "?"));
  step_ = step;
  is_ready_ = true;
}

void EngineSession::enqueue(const Step& step) {
  const Driver& driver = device_.driver();
  for (const Binding* const binding : step.from_host) {
    driver.check(driver.cuMemcpyHtoDAsync(binding->memory, binding->host, binding->bytes, stream_), "cuMemcpyHtoDAsync");
  }
  if (!context_->enqueueV3(stream_)) fail("TensorRT cannot enqueue the step");
  for (const Binding* const binding : step.to_host) {
    driver.check(driver.cuMemcpyDtoHAsync(binding->host, binding->memory, binding->bytes, stream_), "cuMemcpyDtoHAsync");
  }
}

void EngineSession::capture(const Step& step) {
  const Driver& driver = device_.driver();
  synchronize();  // copies of inputs that lie on the GPU are no part of the graph
  CUgraph captured = nullptr;
  driver.check(driver.cuStreamBeginCapture(stream_, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), "cuStreamBeginCapture");
  try {
    enqueue(step);
    driver.check(driver.cuStreamEndCapture(stream_, &captured), "cuStreamEndCapture");
    driver.check(driver.cuGraphInstantiateWithFlags(&graph_, captured, 0), "cuGraphInstantiate");
  } catch (const std::runtime_error&) {  // the step is enqueued call by call, now and from now on
    if (captured == nullptr) driver.cuStreamEndCapture(stream_, &captured);
    graph_ = nullptr;
    can_capture_ = false;
  }
  if (captured != nullptr) driver.cuGraphDestroy(captured);
}

void EngineSession::drop_graph() {
  if (graph_ != nullptr) device_.driver().cuGraphExecDestroy(std::exchange(graph_, nullptr));
}

void EngineSession::synchronize() const {
  device_.driver().check(device_.driver().cuStreamSynchronize(stream_), "cuStreamSynchronize");
}

DeviceBuffer* EngineSession::acquire(std::size_t bytes) {
  const std::lock_guard<std::mutex> hold(pool_lock_);
  const auto found = std::find_if(free_.begin(), free_.end(), [&](const DeviceBuffer* one) { return one->bytes == bytes; });
  if (found != free_.end()) {
    DeviceBuffer* const buffer = *found;
    free_.erase(found);
    return buffer;
  }
  auto buffer = std::make_unique<DeviceBuffer>(DeviceBuffer{0, bytes, device_.index()});
  device_.driver().check(device_.driver().cuMemAlloc(&buffer->memory, std::max<std::size_t>(bytes, 1)), "cuMemAlloc");
  pool_.push_back(std::move(buffer));
  return pool_.back().get();
}

void EngineSession::release(void* handle) {
  const std::lock_guard<std::mutex> hold(pool_lock_);
  free_.push_back(static_cast<DeviceBuffer*>(handle));
}

void EngineSession::fail(const std::string& what, const std::string& hint) {
  throw std::runtime_error(what + ": " + logger_.take() + "." + (hint.empty() ? "" : " " + hint));
}

}  // namespace avsbg_tensorrt
