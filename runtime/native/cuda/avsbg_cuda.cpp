// The C interface over the launchers of correlation.h. No exception crosses it.
#include "avsbg_cuda.h"

#include <algorithm>
#include <array>
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

static_assert(AVSBG_CUDA_MOST_TASKS == avsbg::kMostTasks);
using Tasks = std::array<avsbg::CorrelationTask, avsbg::kMostTasks>;

// The tasks of a group; those beyond the most that it may have are left out, as it is declined by its number.
Tasks tasks_of(const avsbg_task* given, std::int32_t count) {
  Tasks tasks;
  std::transform(given, given + std::clamp(count, 0, avsbg::kMostTasks), tasks.begin(), [](const avsbg_task& one) {
    return avsbg::CorrelationTask{problem_of(one.problem), one.a, one.b, one.mean_a, one.mean_b, one.pairs_per_clip};
  });
  return tasks;
}

// Calls `body(device)` with what is given, or else the current device.
template <class Body>
avsbg_status on_device(const avsbg_device* given, const Body& body) {
  avsbg::Device device;
  if (given != nullptr) {
    device = {given->compute_capability, given->sm_count};
  } else if (const std::string reason = query_device(device); !reason.empty()) {
    return report(AVSBG_FAILED, reason.c_str());
  }
  return body(device);
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
  return guarded([&] {
    if (problem == nullptr) return report(AVSBG_FAILED, "problem is a null pointer");
    if (device == nullptr) return status_of(AVSBG_DECLINED, why_declined(problem_of(*problem)));
    const avsbg::Device target = {device->compute_capability, device->sm_count};
    return status_of(AVSBG_DECLINED, why_declined(problem_of(*problem), target));
  });
}

avsbg_status avsbg_cuda_group_workspace_size(const avsbg_task* tasks, int32_t count, int32_t with_mean_b,
                                             size_t* bytes) {
  return guarded([&] {
    if (tasks == nullptr) return report(AVSBG_FAILED, "tasks is a null pointer");
    if (bytes == nullptr) return report(AVSBG_FAILED, "bytes is a null pointer");
    const Tasks group = tasks_of(tasks, count);
    const avsbg_status status = status_of(AVSBG_DECLINED, why_declined(group.data(), count));
    if (status == AVSBG_SUCCESS) *bytes = mean_correlations_workspace_size(group.data(), count, with_mean_b != 0);
    return status;
  });
}

avsbg_status avsbg_cuda_mean_correlations(const avsbg_task* tasks, int32_t count, const avsbg_device* device,
                                          void* workspace, size_t workspace_size, void* stream) {
  return guarded([&] {
    if (tasks == nullptr) return report(AVSBG_FAILED, "tasks is a null pointer");
    return on_device(device, [&](const avsbg::Device& target) {
      const Tasks group = tasks_of(tasks, count);
      if (const std::string reason = why_declined(group.data(), count, target); !reason.empty())
        return report(AVSBG_DECLINED, reason.c_str());
      const std::size_t needed = mean_correlations_workspace_size(group.data(), count, wants_mean_b(group.data(), count));
      if (workspace_size < needed) {
        const std::string sizes = std::to_string(workspace_size) + " bytes, and " + std::to_string(needed);
        return report(AVSBG_FAILED, ("the workspace has " + sizes + " are needed").c_str());
      }
      return status_of(AVSBG_FAILED, launch_mean_correlations(group.data(), count, target, workspace,
                                                              static_cast<CUstream_st*>(stream)));
    });
  });
}

avsbg_status avsbg_cuda_workspace_size(const avsbg_problem* problem, int32_t with_mean_b, size_t* bytes) {
  if (problem == nullptr) return report(AVSBG_FAILED, "problem is a null pointer");
  const avsbg_task task = {*problem, 0, nullptr, nullptr, nullptr, nullptr};
  return avsbg_cuda_group_workspace_size(&task, 1, with_mean_b, bytes);
}

avsbg_status avsbg_cuda_mean_correlation(const avsbg_problem* problem, const avsbg_device* device, const void* a,
                                         const void* b, float* mean_a, float* mean_b, void* workspace,
                                         size_t workspace_size, void* stream) {
  if (problem == nullptr) return report(AVSBG_FAILED, "problem is a null pointer");
  const avsbg_task task = {*problem, 0, a, b, mean_a, mean_b};
  return avsbg_cuda_mean_correlations(&task, 1, device, workspace, workspace_size, stream);
}

avsbg_status avsbg_cuda_correlation_volume(const avsbg_problem* problem, const avsbg_device* device, const void* a,
                                           const void* b, float* volume, int32_t relu, void* stream) {
  return guarded([&] {
    if (problem == nullptr) return report(AVSBG_FAILED, "problem is a null pointer");
    return on_device(device, [&](const avsbg::Device& target) {
      const avsbg::CorrelationProblem checked = problem_of(*problem);
      if (const std::string reason = why_declined(checked, target); !reason.empty())
        return report(AVSBG_DECLINED, reason.c_str());
      return status_of(AVSBG_FAILED, launch_correlation_volume(checked, target, a, b, volume, relu != 0,
                                                               static_cast<CUstream_st*>(stream)));
    });
  });
}

}  // extern "C"
