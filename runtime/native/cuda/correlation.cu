// The launcher: checks, and the one place where run-time values choose a kernel. See correlation.h for the contract.
#include "correlation.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "combine.cuh"
#include "correlation.cuh"
#include "plan.h"

namespace avsbg {
namespace {

constexpr std::int64_t kMostPositions = std::int64_t{1} << 24;     // of a map: exact in fp32, as the divisor
constexpr std::int64_t kMostRows = std::int64_t{1} << 36;          // of a tensor: bytes, also a volume's, fit in 63 bits
constexpr std::int64_t kMostBlocks = (std::int64_t{1} << 31) - 1;  // of a grid

std::string words(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return "";
  return std::string(doing) + " failed: " + cudaGetErrorString(error);
}

bool aligned(const void* pointer, std::uintptr_t to) { return reinterpret_cast<std::uintptr_t>(pointer) % to == 0; }

// Why these pointers cannot be used, or "".
std::string bad_pointer(const char* name, const void* pointer, std::uintptr_t alignment) {
  if (pointer == nullptr) return std::string(name) + " is a null pointer";
  if (aligned(pointer, alignment)) return "";
  return std::string(name) + " must be aligned to " + std::to_string(alignment) + " bytes";
}

std::string first_of(std::initializer_list<std::string> reasons) {
  for (const std::string& reason : reasons)
    if (!reason.empty()) return reason;
  return "";
}

template <class... Parameters, class... Arguments>
cudaError_t enqueue(void (*kernel)(Parameters...), dim3 grid, int threads, cudaStream_t stream,
                    const Arguments&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

template <class Operand, Output kOutput>
cudaError_t enqueue_correlate(const Plan& plan, const CorrelateArguments& arguments, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(plan.query_tiles * arguments.n), plan.splits);
  if constexpr (Operand::kTensorCore && kOutput != Output::kVolume) {
    if (plan.resident)
      return enqueue(correlate<Correlation<Operand, true, kOutput>>, grid, kThreads, stream, arguments);
  }
  return enqueue(correlate<Correlation<Operand, false, kOutput>>, grid, kThreads, stream, arguments);
}

template <Output kOutput>
cudaError_t enqueue_correlate(DataType dtype, const Plan& plan, const CorrelateArguments& arguments,
                              cudaStream_t stream) {
  switch (dtype) {
    case DataType::kFloat32: return enqueue_correlate<Fp32, kOutput>(plan, arguments, stream);
    case DataType::kTf32: return enqueue_correlate<Tf32, kOutput>(plan, arguments, stream);
    case DataType::kFloat16: return enqueue_correlate<Fp16, kOutput>(plan, arguments, stream);
    case DataType::kBfloat16: return enqueue_correlate<Bf16, kOutput>(plan, arguments, stream);
  }
  return cudaErrorInvalidValue;
}

CorrelateArguments common_arguments(const CorrelationProblem& problem, const Plan& plan, const void* a, const void* b) {
  CorrelateArguments arguments = {};
  arguments.a = static_cast<const uint4*>(a);
  arguments.b = static_cast<const uint4*>(b);
  arguments.n = problem.n;
  arguments.p = static_cast<int>(problem.p);
  arguments.q = static_cast<int>(problem.q);
  arguments.units = plan.units;
  arguments.query_tiles = static_cast<int>(plan.query_tiles);
  arguments.target_tiles = plan.target_tiles;
  arguments.tiles_per_split = plan.tiles_per_split;
  return arguments;
}

}  // namespace

std::string query_device(Device& device) {
  int id = 0, major = 0, minor = 0;
  cudaError_t error = cudaGetDevice(&id);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, id);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, id);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&device.sm_count, cudaDevAttrMultiProcessorCount, id);
  device.compute_capability = 10 * major + minor;
  return words(error, "asking for the CUDA device");
}

std::string why_declined(const CorrelationProblem& problem) {
  const auto [n, p, q, c, dtype] = problem;
  const auto is = [](const char* name, std::int64_t value) { return name + (" = " + std::to_string(value)); };
  if (dtype < DataType::kFloat32 || dtype > DataType::kBfloat16)
    return is("dtype", static_cast<std::int64_t>(dtype)) + " is not one of fp32 (0), tf32 (1), fp16 (2), bf16 (3)";
  if (c < 8 || c > 512 || c % 8 != 0) return is("C", c) + " channels: must be a multiple of 8 from 8 to 512";
  if (p < 1 || p > kMostPositions) return is("P", p) + " positions of a: must be 1 to 2^24";
  if (q < 1 || q > kMostPositions) return is("Q", q) + " positions of b: must be 1 to 2^24";
  if (n < 0) return is("N", n) + " pairs: must not be negative";
  if (n > kMostRows / std::max(p, q) || n > kMostBlocks / ceil_divide(p, kQueries))
    return is("N", n) + " pairs of " + is("P", p) + " and " + is("Q", q) +
           " positions: N * max(P, Q) must not exceed 2^36, and N * ceil(P / 128) must be below 2^31";
  return "";
}

std::string why_declined(const CorrelationProblem& problem, const Device& device) {
  const std::string reason = why_declined(problem);
  if (!reason.empty()) return reason;
  const auto capability = std::to_string(device.compute_capability / 10) + "." +
                          std::to_string(device.compute_capability % 10);
  if (device.compute_capability < 75) return "compute capability " + capability + ": must be 7.5 or later";
  if (device.sm_count < 1) return "sm_count = " + std::to_string(device.sm_count) + ": must be positive";
  if (device.compute_capability < 80 && problem.dtype == DataType::kTf32)
    return "tf32 needs compute capability 8.0 or later, this device has " + capability + ": use fp32 or fp16";
  if (device.compute_capability < 80 && problem.dtype == DataType::kBfloat16)
    return "bf16 needs compute capability 8.0 or later, this device has " + capability + ": use fp16";
  return "";
}

std::size_t mean_correlation_workspace_size(const CorrelationProblem& problem, bool with_mean_b) {
  if (!why_declined(problem).empty()) return 0;
  return sizeof(float) * static_cast<std::size_t>(row_partials(problem) + (with_mean_b ? column_partials(problem) : 0));
}

std::string launch_mean_correlation(const CorrelationProblem& problem, const Device& device, const void* a,
                                    const void* b, float* mean_a, float* mean_b, void* workspace, CUstream_st* stream) {
  const std::string reason = why_declined(problem, device);
  if (!reason.empty() || problem.n == 0) return reason;
  const bool with_mean_b = mean_b != nullptr;
  const bool with_workspace = mean_correlation_workspace_size(problem, with_mean_b) > 0;
  const std::string pointer =
      first_of({bad_pointer("a", a, 16), bad_pointer("b", b, 16), bad_pointer("mean_a", mean_a, 4),
                with_mean_b ? bad_pointer("mean_b", mean_b, 4) : "",
                with_workspace ? bad_pointer("the workspace", workspace, 16) : ""});
  if (!pointer.empty()) return pointer;

  // Where one block has a whole sum it writes the mean; otherwise partial sums go to the workspace.
  const Plan plan = make_plan(problem, device, false);
  const auto q = static_cast<float>(problem.q), p = static_cast<float>(problem.p);
  float* row_workspace = static_cast<float*>(workspace);
  float* column_workspace = row_workspace + row_partials(problem);
  const bool split_rows = plan.splits > 1;
  const bool split_columns = with_mean_b && plan.query_tiles > 1;
  CorrelateArguments arguments = common_arguments(problem, plan, a, b);
  arguments.rows = split_rows ? row_workspace : mean_a;
  arguments.row_divisor = split_rows ? 1.0F : q;
  arguments.columns = split_columns ? column_workspace : mean_b;
  arguments.column_divisor = split_columns ? 1.0F : p;

  const cudaError_t error = with_mean_b
                                ? enqueue_correlate<Output::kRowsAndColumns>(problem.dtype, plan, arguments, stream)
                                : enqueue_correlate<Output::kRows>(problem.dtype, plan, arguments, stream);
  if (error != cudaSuccess || (!split_rows && !split_columns)) return words(error, "launching the correlation kernel");

  const std::int64_t rows = problem.n * problem.p, columns = problem.n * problem.q;
  const Partials row_sums = {row_workspace, mean_a, rows, split_rows ? plan.splits : 0, q};
  const Partials column_sums = {column_workspace, mean_b, columns,
                                split_columns ? static_cast<int>(plan.query_tiles) : 0, p};
  const std::int64_t most = std::max(split_rows ? rows : 0, split_columns ? columns : 0);
  const dim3 grid(static_cast<unsigned>(ceil_divide(most, kCombineThreads)), 2);
  return words(enqueue(combine, grid, kCombineThreads, stream, row_sums, column_sums),
               "launching the combining kernel");
}

std::string launch_correlation_volume(const CorrelationProblem& problem, const Device& device, const void* a,
                                      const void* b, float* volume, bool relu, CUstream_st* stream) {
  const std::string reason = why_declined(problem, device);
  if (!reason.empty() || problem.n == 0) return reason;
  const std::string pointer =
      first_of({bad_pointer("a", a, 16), bad_pointer("b", b, 16), bad_pointer("volume", volume, 8)});
  if (!pointer.empty()) return pointer;
  const Plan plan = make_plan(problem, device, true);
  CorrelateArguments arguments = common_arguments(problem, plan, a, b);
  arguments.volume = volume;
  arguments.relu = relu;
  return words(enqueue_correlate<Output::kVolume>(problem.dtype, plan, arguments, stream),
               "launching the correlation kernel");
}

}  // namespace avsbg
