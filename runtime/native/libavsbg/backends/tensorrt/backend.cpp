// The backend for TensorRT, libavsbg_backend_tensorrt.so, and, with the headers of TensorRT for RTX,
// libavsbg_backend_tensorrt-rtx.so: opens the product's library and CUDA's driver itself, and links neither.
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "backends/guard.h"
#include "backends/tensorrt/session.h"

namespace {

using avsbg_tensorrt::EngineSession;

std::int32_t open_session(const avsbg_session_request* request, void** session, avsbg_text* description,
                          avsbg_text* error) {
  return guarded(error, [&] {
    nlohmann::json fields;
    auto opened = std::make_unique<EngineSession>(*request, fields);
    std::snprintf(description->data, sizeof description->data, "%s", fields.dump().c_str());
    *session = opened.release();
  });
}

std::int32_t run_session(void* session, const avsbg_tensor* inputs, std::size_t input_count, avsbg_tensor* outputs,
                         std::size_t output_count, avsbg_text* error) {
  return guarded(error, [&] { static_cast<EngineSession*>(session)->run(inputs, input_count, outputs, output_count); });
}

void release_tensor(void* session, void* handle) { static_cast<EngineSession*>(session)->release(handle); }
void close_session(void* session) { delete static_cast<EngineSession*>(session); }

void* device_memory(void*, void* handle) {
  return reinterpret_cast<void*>(static_cast<const avsbg_tensorrt::DeviceBuffer*>(handle)->memory);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const avsbg_backend_table* avsbg_backend() {
  static const avsbg_backend_table table = {AVSBG_BACKEND_ABI, open_session,  run_session,
                                            release_tensor,    close_session, device_memory,
                                            avsbg_tensorrt::find_compute_capability};
  return &table;
}
