// The C interface over the launchers of correlation.h. No exception crosses it.
#include "avsbg_cuda.h"

#include <cstdio>
#include <exception>
#include <string>

#include "correlation.h"

namespace {

// Of fixed size, so that reporting an error cannot fail.
thread_local char last_error[512] = "";

avsbg_status report(avsbg_status status, const char* text) {
  std::snprintf(last_error, sizeof(last_error), "%s", text);
  return status;
}

avsbg_status status_of(avsbg_status failure, const std::string& reason) {
  return reason.empty() ? AVSBG_SUCCESS : report(failure, reason.c_str());
}

template <class Body>
avsbg_status guarded(const Body& body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    return report(AVSBG_FAILED, error.what());
  }
}

avsbg::CorrelationProblem problem_of(const avsbg_problem& problem) {
  return {problem.n, problem.p, problem.q, problem.c, static_cast<avsbg::DataType>(problem.dtype)};
}

// Checks that the kernels take the problem on the device, then calls `launch(problem, device)`.
template <class Launch>
avsbg_status run(const avsbg_problem* given, const avsbg_device* device, const Launch& launch) noexcept {
  return guarded([&] {
    if (given == nullptr) return report(AVSBG_FAILED, "problem is a null pointer");
    const avsbg::CorrelationProblem problem = problem_of(*given);
    avsbg::Device target;
    if (device != nullptr) {
      target = {device->compute_capability, device->sm_count};
    } else if (const std::string reason = query_device(target); !reason.empty()) {
      return report(AVSBG_FAILED, reason.c_str());
    }
    if (const std::string reason = why_declined(problem, target); !reason.empty())
      return report(AVSBG_DECLINED, reason.c_str());
    return status_of(AVSBG_FAILED, launch(problem, target));
  });
}

}  // namespace

extern "C" {

int32_t avsbg_cuda_abi_version() { return AVSBG_CUDA_ABI_VERSION; }

const char* avsbg_cuda_last_error() { return last_error; }

avsbg_status avsbg_cuda_query_device(avsbg_device* device) {
  return guarded([&] {
    if (device == nullptr) return report(AVSBG_FAILED, "device is a null pointer");
    avsbg::Device found;
    const std::string reason = query_device(found);
    if (reason.empty()) *device = {found.compute_capability, found.sm_count};
    return status_of(AVSBG_FAILED, reason);
  });
}

avsbg_status avsbg_cuda_check_problem(const avsbg_problem* problem, const avsbg_device* device) {
  if (device != nullptr) return run(problem, device, [](const auto&, const auto&) { return std::string(); });
  return guarded([&] {
    if (problem == nullptr) return report(AVSBG_FAILED, "problem is a null pointer");
    return status_of(AVSBG_DECLINED, why_declined(problem_of(*problem)));
  });
}

avsbg_status avsbg_cuda_workspace_size(const avsbg_problem* problem, int32_t with_mean_b, size_t* bytes) {
  return guarded([&] {
    if (bytes == nullptr) return report(AVSBG_FAILED, "bytes is a null pointer");
    const avsbg_status status = avsbg_cuda_check_problem(problem, nullptr);
    if (status == AVSBG_SUCCESS) *bytes = mean_correlation_workspace_size(problem_of(*problem), with_mean_b != 0);
    return status;
  });
}

avsbg_status avsbg_cuda_mean_correlation(const avsbg_problem* problem, const avsbg_device* device, const void* a,
                                         const void* b, float* mean_a, float* mean_b, void* workspace,
                                         size_t workspace_size, void* stream) {
  return run(problem, device, [&](const auto& checked, const auto& target) {
    const std::size_t needed = mean_correlation_workspace_size(checked, mean_b != nullptr);
    if (workspace_size < needed)
      return "the workspace has " + std::to_string(workspace_size) + " bytes, and " + std::to_string(needed) +
             " are needed";
    return launch_mean_correlation(checked, target, a, b, mean_a, mean_b, workspace,
                                   static_cast<CUstream_st*>(stream));
  });
}

avsbg_status avsbg_cuda_correlation_volume(const avsbg_problem* problem, const avsbg_device* device, const void* a,
                                           const void* b, float* volume, int32_t relu, void* stream) {
  return run(problem, device, [&](const auto& checked, const auto& target) {
    return launch_correlation_volume(checked, target, a, b, volume, relu != 0, static_cast<CUstream_st*>(stream));
  });
}

}  // extern "C"
