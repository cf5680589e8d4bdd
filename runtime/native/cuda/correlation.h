// The contract of the CUDA correlation kernels: what they compute, on what, and when they decline.
// Plain C++17 without CUDA headers, so that a host compiler can build whatever calls it.
//
// Definition. a is [N, P, C] and b is [N, Q, C]: N pairs of maps whose rows are positions, channels last.
//
//     volume[n, p, q] = sum over c of a[n, p, c] * b[n, q, c]
//     mean_a[n, p]    = 1/Q * sum over q of relu(volume[n, p, q])
//     mean_b[n, q]    = 1/P * sum over p of relu(volume[n, p, q])
//
// launch_mean_correlations computes the two means without ever storing the volume; launch_correlation_volume stores it.
//
// Layout.     Every tensor is dense and row-major, in device memory. a and b start on a 16-byte boundary.
// Types.      a and b share one DataType. Products are accumulated in fp32 and every output is fp32, whatever the
//             inputs are: a caller who wants another type casts the small result.
// Groups.     launch_mean_correlations computes up to kMostTasks problems of one data type in one launch: small ones then
//             cost no launch of their own, and share the device's multiprocessors with the large ones.
// Clips.      The pairs of neighbouring frames need no copies of the maps: with `pairs_per_clip` = T - 1, a is
//             [B, T, P, C], b points to its second frame, and n = B * (T - 1).
// Ranges.     C is a multiple of 8 from 8 to 512; P and Q are 1 to 2^24; N >= 0, N * max(P, Q) <= 2^36 and
//             N * ceil(P / 128) < 2^31. N = 0 is valid and launches nothing. why_declined names the value that is out
//             of range; nothing is ever computed in another way instead.
// Non-finite. As torch.relu: relu(NaN) = NaN, so a NaN product makes its two means NaN. A product of +inf makes them
//             +inf, one of -inf counts as 0, and inf * 0 is NaN. Padding never takes part: it adds no NaN of its own.
// Result.     Two runs of one problem with one Device give the same bits: every sum has a fixed order and there are no
//             floating-point atomics. The order depends on Device, so two GPUs may differ in the last bits.
// Streams.    A launch only enqueues one or two kernels on `stream`: no allocation, no synchronisation, no handle is
//             made, so it may be captured in a CUDA graph. Thread-safe; calls that may overlap need their own
//             workspaces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

struct CUstream_st;  // cudaStream_t is a pointer to this

namespace avsbg {

// The type of a and b, and of their products.
enum class DataType : std::int32_t {
  kFloat32 = 0,   // fp32 values, fp32 multiply-add on the ordinary cores
  kTf32 = 1,      // fp32 values, rounded to tf32 (10 bits of mantissa, ties away from zero) for the tensor cores
  kFloat16 = 2,   // IEEE binary16, tensor cores
  kBfloat16 = 3,  // bfloat16, tensor cores
};

struct CorrelationProblem {
  std::int64_t n = 0;  // pairs of maps
  std::int64_t p = 0;  // positions of each map of a
  std::int64_t q = 0;  // positions of each map of b
  std::int64_t c = 0;  // channels
  DataType dtype = DataType::kFloat32;
};

// The device that will run the kernel. compute_capability is 10 * major + minor: 87 for Jetson Orin.
struct Device {
  int compute_capability = 0;
  int sm_count = 0;
};

// Fills `device` for the calling thread's current CUDA device. Returns "" or what went wrong.
[[nodiscard]] std::string query_device(Device& device);

// The reason that the kernels decline `problem`, in words that name the offending value, or "" if they take it. The first
// form knows no device (for a build on another machine). The second adds what the device lacks: tf32 and bf16 need
// compute capability 8.0, everything needs 7.5.
[[nodiscard]] std::string why_declined(const CorrelationProblem& problem);
[[nodiscard]] std::string why_declined(const CorrelationProblem& problem, const Device& device);

inline constexpr int kMostTasks = 4;  // of a group

// A problem of a group with its tensors.
struct CorrelationTask {
  CorrelationProblem problem;
  const void* a = nullptr;
  const void* b = nullptr;
  float* mean_a = nullptr;
  float* mean_b = nullptr;          // of all tasks of a group, or of none
  std::int64_t pairs_per_clip = 0;  // 0: each pair has maps of its own; T - 1: see "Clips"
};

// The reason that the kernels decline a group, one of whose problems they may decline, or "". No tensor is looked at.
[[nodiscard]] std::string why_declined(const CorrelationTask* tasks, int count);
[[nodiscard]] std::string why_declined(const CorrelationTask* tasks, int count, const Device& device);

// Bytes of scratch memory that launch_mean_correlations needs on any device: 4 * N * Q * ceil(P / 128) for each mean_b
// where P > 128, and at most 1 MiB for all mean_a. It never decreases as N, P and Q grow, so that the size for the
// largest shapes serves all smaller ones. 0 for a group that is declined. Of the tasks, the problems alone count.
[[nodiscard]] std::size_t mean_correlations_workspace_size(const CorrelationTask* tasks, int count, bool with_mean_b);

// Whether a group asks for mean_b: a problem of it that is not empty does.
[[nodiscard]] bool wants_mean_b(const CorrelationTask* tasks, int count);

// Enqueues the means of a group on `stream`. mean_a is [N, P] fp32; mean_b is [N, Q] fp32, or nullptr when it is not
// wanted. `workspace` is 16-byte aligned device memory of at least mean_correlations_workspace_size bytes with any
// content; it may be nullptr where that is 0. Returns "" or, in words, why nothing was enqueued or which launch failed.
[[nodiscard]] std::string launch_mean_correlations(const CorrelationTask* tasks, int count, const Device& device,
                                                   void* workspace, CUstream_st* stream);

// Enqueues the volume, [N, P, Q] fp32 and 8-byte aligned, on `stream`: after ReLU if `relu`, as it is if not.
// Needs no workspace. Returns as launch_mean_correlations.
[[nodiscard]] std::string launch_correlation_volume(const CorrelationProblem& problem, const Device& device,
                                                    const void* a, const void* b, float* volume, bool relu,
                                                    CUstream_st* stream);

}  // namespace avsbg
