// A graph on a backend: which graph, implementation and library a user's words mean, and one call of it.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bundle/bundle.h"
#include "inference/backend_api.h"

namespace avsbg {

// BACKEND[:IMPLEMENTATION][:PRECISION], as runtime/backends/spec.py reads it.
struct BackendSpec {
  std::string text, backend, implementation, precision;
  std::string rest;  // the type of what a quantised engine leaves out, written rest-fp16

  static BackendSpec parse(const std::string& text);
};

struct SessionOptions {
  BackendSpec spec;
  int threads = 0, device = 0;
  bool ignore_accuracy = false, trust = false;
  std::string engine, backend_folder, runtime_library;

  // The folder of the backends: the one that was named, or this library's own.
  std::string folder() const;
};

class Session;

// A tensor in the host's memory, one that its session keeps where it was computed, or both.
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Array array) : array_(std::move(array)) {}
  Tensor(const Session* session, void* handle, Array array);
  Tensor(Tensor&& other) noexcept { *this = std::move(other); }
  Tensor& operator=(Tensor&& other) noexcept;
  ~Tensor();

  const Array& array() const { return array_; }  // of one that is kept alone, its dtype and shape
  void* handle() const { return handle_; }
  // The address of one that is kept in a GPU's memory; else null.
  const void* device_memory() const;
  // Takes what is kept away from this tensor, which goes on in the host's memory alone.
  Tensor detach();

 private:
  Array array_;
  const Session* session_ = nullptr;
  void* handle_ = nullptr;
};
using Tensors = std::map<std::string, Tensor>;

// The place of a call's outputs: the host's memory, the session's own, or both where the backend computes on a GPU.
enum class Place { kHost, kSession, kBoth };

class Session {
 public:
  // Opens a graph of the bundle; `graph` is a role (clip, encode, decode). Throws an Error.
  Session(const Bundle& bundle, const std::string& role, const SessionOptions& options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const std::string& graph() const { return graph_; }
  const GraphRecord& contract() const { return *contract_; }
  const std::string& precision() const { return precision_; }
  const AccuracyRecord* accuracy() const { return accuracy_; }
  const nlohmann::json& description() const { return description_; }

  // Executes the graph on inputs of its contract. On any number of threads at once. Throws an Error.
  Tensors run(const std::map<std::string, const Tensor*>& inputs, const std::vector<std::string>& outputs,
              Place place = Place::kHost) const;

 private:
  friend class Tensor;
  void open_backend(const SessionOptions& options);
  void open(const Bundle& bundle, const SessionOptions& options, const EngineRecord* engine);

  std::shared_ptr<void> library_;
  const avsbg_backend_table* table_ = nullptr;
  void* session_ = nullptr;
  std::string graph_, implementation_, precision_;
  const GraphRecord* contract_ = nullptr;
  const AccuracyRecord* accuracy_ = nullptr;
  nlohmann::json description_;
};

// Refuses what misses its accuracy threshold; returns the fields of a description that say how it was judged.
nlohmann::json check_accuracy(const std::string& what, const AccuracyRecord* accuracy, bool ignore);

}  // namespace avsbg
