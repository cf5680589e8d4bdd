// One engine with one execution context, its buffers and the captured graph of its latest step.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backends/tensorrt/driver.h"
#include "backends/tensorrt/library.h"
#include "inference/backend_api.h"

namespace avsbg_tensorrt {

// Memory of an output that stays on the GPU.
struct DeviceBuffer {
  CUdeviceptr memory = 0;
  std::size_t bytes = 0;
  int device = 0;
};

// An input or output of the engine, with fixed memory of the size of its largest shape: a captured graph holds the
// addresses.
struct Binding {
  std::string name;
  bool is_input = false;
  std::size_t item = 0;  // bytes of an element
  std::vector<std::int64_t> largest;
  struct Profile {
    std::vector<std::int64_t> smallest, optimal, largest;
  };
  std::vector<Profile> profiles;  // of an input
  std::vector<std::int64_t> shape;  // of the latest step's input
  std::size_t bytes = 0;  // of the latest step's tensor
  CUdeviceptr memory = 0;
  void* host = nullptr;  // pinned
};

class EngineSession {
 public:
  // Throws a std::runtime_error: no GPU, another than the record's, no TensorRT, another version, an engine that is
  // refused or is not of the contract, or too little memory.
  EngineSession(const avsbg_session_request& request, nlohmann::json& description);
  ~EngineSession();
  EngineSession(const EngineSession&) = delete;
  EngineSession& operator=(const EngineSession&) = delete;

  // One step at a time: threads wait for each other. The first of its kind is enqueued call by call, which is the
  // warm-up that plugins and lazy loading need; the second is captured as a CUDA graph, and launched from then on.
  void run(const avsbg_tensor* inputs, std::size_t input_count, avsbg_tensor* outputs, std::size_t output_count);
  void release(void* handle);

 private:
  struct Step {
    std::vector<std::vector<std::int64_t>> shapes;       // of the inputs
    std::vector<const Binding*> from_host, to_host;
    bool operator==(const Step& other) const {
      return shapes == other.shapes && from_host == other.from_host && to_host == other.to_host;
    }
  };

  explicit EngineSession(const avsbg_session_request& request);
  void load(const avsbg_session_request& request);
  void load_plugin(nvinfer1::IPluginRegistry& registry, const std::string& folder) const;
  void bind(const avsbg_session_request& request);
  void set_addresses();
  int choose_profile(const std::vector<std::vector<std::int64_t>>& shapes) const;
  Binding& find(const char* name);
  void prepare(const Step& step);
  void enqueue(const Step& step);
  void capture(const Step& step);
  void drop_graph();
  void synchronize() const;
  DeviceBuffer* acquire(std::size_t bytes);
  [[noreturn]] void fail(const std::string& what, const std::string& hint = "");

  Library library_;  // a library that is not there is told before a GPU that is not
  Device device_;
  nlohmann::json record_;
  std::string file_, rebuild_;
  Logger logger_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  std::vector<Binding> bindings_;
  CUstream stream_ = nullptr;
  CUgraphExec graph_ = nullptr;
  bool is_ready_ = false;    // the context has the latest step's shapes
  bool can_capture_ = true;  // false from a capture that failed on
  int profile_ = 0;
  Step step_;
  std::mutex running_, pool_lock_;
  std::vector<std::unique_ptr<DeviceBuffer>> pool_;
  std::vector<DeviceBuffer*> free_;
};

}  // namespace avsbg_tensorrt
