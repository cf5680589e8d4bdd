// TensorRT 11 changed the virtual tables of ILoggerFinder and ILogger: both became versioned interfaces, which begin
// with the functions of IVersionedInterface. A library built with the headers of TensorRT 10 and loaded by TensorRT 11
// (or TensorRT for RTX, which shares its interfaces), or the other way round, would call the wrong function. So the two
// interfaces are declared here in both forms, and the run-time type of the finder that arrives tells which one it has.
#include "report.h"

#include <NvInferRuntime.h>
#include <cxxabi.h>

#include <atomic>
#include <cstdio>
#include <type_traits>
#include <typeinfo>

namespace avsbg::tensorrt {

using Severity = nvinfer1::ILogger::Severity;

// Not in an anonymous namespace: the compiler would see that nothing here implements them, and call nothing.
namespace foreign {

struct Logger10 {
  virtual void log(Severity severity, char const* message) noexcept = 0;
  virtual ~Logger10() = default;
};

struct LoggerFinder10 {
  virtual Logger10* findLogger() = 0;
  virtual ~LoggerFinder10() = default;
};

struct Logger11 : nvinfer1::IVersionedInterface {
  virtual void log(Severity severity, char const* message) noexcept = 0;
};

struct LoggerFinder11 : nvinfer1::IVersionedInterface {
  virtual Logger11* findLogger() = 0;
};

}  // namespace foreign

namespace {

bool derives_from_versioned_interface(std::type_info const& type) {
  if (type == typeid(nvinfer1::IVersionedInterface)) {
    return true;
  }
  auto const* const derived = dynamic_cast<abi::__si_class_type_info const*>(&type);
  return derived != nullptr && derives_from_versioned_interface(*derived->__base_type);
}

// The run-time type of an object with virtual functions whose class is not known: what typeid does, for any layout.
// Null where its library was compiled without such types.
std::type_info const* run_time_type(void const* object) {
  auto const* const virtual_table = *static_cast<std::type_info const* const* const*>(object);
  return virtual_table[-1];
}

bool is_versioned_finder(void const* finder) {
  std::type_info const* const type = run_time_type(finder);
  // Without a type, TensorRT is taken to be of the version that this was compiled for.
  return type == nullptr ? std::is_base_of_v<nvinfer1::IVersionedInterface, nvinfer1::ILoggerFinder>
                         : derives_from_versioned_interface(*type);
}

// TensorRT hands the same object over for each of its registries, one of the library's own (seen with TensorRT for RTX
// 1.7.1), so the end of a registry or builder changes nothing. Nothing tells which of two TensorRTs in a process calls.
std::atomic<void*> logger_finder{nullptr};

}  // namespace

void set_logger_finder(void* finder) noexcept { logger_finder = finder; }

void report_failure(char const* plugin, char const* node, char const* when, char const* what) noexcept {
  char message[1024];  // a longer one is cut: a failure to allocate must be reportable too
  std::snprintf(message, sizeof(message), "avsbg %s \"%s\", %s: %s", plugin, node, when, what);
  // Read once: another TensorRT may hand its own over meanwhile, of the other form.
  void* const finder = logger_finder;
  if (finder != nullptr && is_versioned_finder(finder)) {
    if (auto* const logger = static_cast<foreign::LoggerFinder11*>(finder)->findLogger()) {
      return logger->log(Severity::kERROR, message);
    }
  } else if (finder != nullptr) {
    if (auto* const logger = static_cast<foreign::LoggerFinder10*>(finder)->findLogger()) {
      return logger->log(Severity::kERROR, message);
    }
  }
  std::fprintf(stderr, "%s\n", message);
}

}  // namespace avsbg::tensorrt
