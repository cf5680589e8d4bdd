// The launcher: checks, and the one place where run-time values choose a kernel. See correlation.h for the contract.
#include "correlation.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <initializer_list>
#include <limits>
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

// The reason that these pointers cannot be used, or "".
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

template <class Arguments>
cudaError_t enqueue(void (*kernel)(Arguments), std::int64_t blocks, int threads, cudaStream_t stream,
                    const Arguments& arguments, bool overlaps = false) {
  // A kernel that overlaps with the one before it waits for its results by itself (ptx::wait_for_previous_kernel).
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(threads);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = overlaps ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, arguments);
}

// Sets `waits` to whether `combine` waits for the kernel before it on the current device. That is a matter of the code,
// not of the device: what the driver translates from PTX for less than compute capability 9.0 has no such instruction.
// Remembered for each device: 0 where it was not asked for.
cudaError_t query_combine_waits(bool& waits) {
  static std::array<std::atomic<int>, 64> versions = {};
  int id = 0;
  cudaError_t error = cudaGetDevice(&id);
  if (error != cudaSuccess) return error;
  std::atomic<int>* known = id < static_cast<int>(versions.size()) ? &versions[static_cast<std::size_t>(id)] : nullptr;
  int version = known == nullptr ? 0 : known->load(std::memory_order_relaxed);
  if (version == 0) {
    cudaFuncAttributes attributes = {};
    error = cudaFuncGetAttributes(&attributes, combine);
    if (error != cudaSuccess) return error;
    version = attributes.ptxVersion;
    if (known != nullptr) known->store(version, std::memory_order_relaxed);
  }
  waits = version >= 90;
  return cudaSuccess;
}

template <class Operand, int kResidentUnits, Output kOutput>
cudaError_t enqueue_kernel(const CorrelateArguments& arguments, cudaStream_t stream) {
  return enqueue(correlate<Correlation<Operand, kResidentUnits, kOutput>>, arguments.workers, kThreads, stream,
                 arguments);
}

template <class Operand, Output kOutput>
cudaError_t enqueue_schedule(const Schedule& schedule, const CorrelateArguments& arguments, cudaStream_t stream) {
  if constexpr (Operand::kTensorCore && kOutput != Output::kVolume) {
    if (schedule.resident) {
      if (schedule.units == 4) return enqueue_kernel<Operand, 4, kOutput>(arguments, stream);
      if (schedule.units == 8) return enqueue_kernel<Operand, 8, kOutput>(arguments, stream);
      return enqueue_kernel<Operand, kResidentUnits, kOutput>(arguments, stream);
    }
  }
  return enqueue_kernel<Operand, 0, kOutput>(arguments, stream);
}

template <Output kOutput>
cudaError_t enqueue_correlate(DataType dtype, const Schedule& schedule, const CorrelateArguments& arguments,
                              cudaStream_t stream) {
  switch (dtype) {
    case DataType::kFloat32: return enqueue_schedule<Fp32, kOutput>(schedule, arguments, stream);
    case DataType::kTf32: return enqueue_schedule<Tf32, kOutput>(schedule, arguments, stream);
    case DataType::kFloat16: return enqueue_schedule<Fp16, kOutput>(schedule, arguments, stream);
    case DataType::kBfloat16: return enqueue_schedule<Bf16, kOutput>(schedule, arguments, stream);
  }
  return cudaErrorInvalidValue;
}

// Adds a problem to a launch.
Task& add_task(CorrelateArguments& arguments, const CorrelationProblem& problem, const Schedule& schedule,
               const void* a, const void* b) {
  Task& task = arguments.tasks[arguments.count++];
  task.a = static_cast<const uint4*>(a);
  task.b = static_cast<const uint4*>(b);
  task.n = problem.n;
  task.p = static_cast<int>(problem.p);
  task.q = static_cast<int>(problem.q);
  task.units = row_units(problem);
  task.query_tiles = static_cast<int>(ceil_divide(problem.p, kQueries));
  task.target_tiles = static_cast<int>(ceil_divide(problem.q, schedule.targets));
  task.pairs_per_clip = std::numeric_limits<std::int64_t>::max();
  task.first_tile = arguments.tiles;
  arguments.tiles += count_tiles(problem, schedule.targets);
  return task;
}

// The kernel for all problems of a group.
Schedule choose_group_schedule(const CorrelationTask* tasks, int count, bool with_mean_b, const Device& device) {
  int units = 0;
  for (int i = 0; i < count; ++i) units = std::max(units, row_units(tasks[i].problem));
  const Output output = with_mean_b ? Output::kRowsAndColumns : Output::kRows;
  return choose_schedule(tasks[0].problem.dtype, units, output, device);
}

// Floats of a group's workspace, in this order.
struct Partials {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
};

Partials count_partials(const CorrelationTask* tasks, int count, const Schedule& schedule, bool with_mean_b) {
  Partials partials;
  std::int64_t tiles = 0;
  bool shared = false;  // whether workers may share a query tile
  for (int i = 0; i < count; ++i) {
    const CorrelationProblem& problem = tasks[i].problem;
    tiles += count_tiles(problem, schedule.targets);
    shared = shared || (problem.n > 0 && problem.q > schedule.targets);
    partials.columns += with_mean_b ? column_partials(problem) : 0;
  }
  if (shared) partials.rows = row_partials(tiles);
  return partials;
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

std::string why_declined(const CorrelationTask* tasks, int count) {
  if (count < 1 || count > kMostTasks)
    return std::to_string(count) + " problems in a group: must be 1 to " + std::to_string(kMostTasks);
  for (int i = 0; i < count; ++i) {
    const std::string reason = why_declined(tasks[i].problem);
    if (!reason.empty()) return reason;
    if (tasks[i].problem.dtype != tasks[0].problem.dtype) return "the problems of a group must have one dtype";
  }
  return "";
}

std::string why_declined(const CorrelationTask* tasks, int count, const Device& device) {
  std::string reason = why_declined(tasks, count);
  for (int i = 0; i < count && reason.empty(); ++i) reason = why_declined(tasks[i].problem, device);
  return reason;
}

std::size_t mean_correlations_workspace_size(const CorrelationTask* tasks, int count, bool with_mean_b) {
  if (!why_declined(tasks, count).empty()) return 0;
  const Schedule schedule = choose_group_schedule(tasks, count, with_mean_b, {});
  const Partials partials = count_partials(tasks, count, schedule, with_mean_b);
  return sizeof(float) * static_cast<std::size_t>(partials.rows + partials.columns);
}

bool wants_mean_b(const CorrelationTask* tasks, int count) {
  return std::any_of(tasks, tasks + count, [](const CorrelationTask& one) { return one.problem.n > 0 && one.mean_b != nullptr; });
}

std::string launch_mean_correlations(const CorrelationTask* tasks, int count, const Device& device, void* workspace,
                                     CUstream_st* stream) {
  const std::string declined = why_declined(tasks, count, device);
  if (!declined.empty()) return declined;
  const bool with_mean_b = wants_mean_b(tasks, count);
  const Schedule schedule = choose_group_schedule(tasks, count, with_mean_b, device);
  const Partials partials = count_partials(tasks, count, schedule, with_mean_b);

  CombineArguments combined = {};
  CorrelateArguments& arguments = combined.of;
  std::int64_t combine_blocks = 0;
  arguments.row_partials = static_cast<float*>(workspace);
  float* columns = arguments.row_partials + partials.rows;
  for (int i = 0; i < count; ++i) {
    const CorrelationTask& from = tasks[i];
    if (from.pairs_per_clip < 0) return "pairs_per_clip must not be negative";
    if (from.problem.n == 0) continue;  // whose tensors may be null pointers
    if ((from.mean_b != nullptr) != with_mean_b) return "mean_b must be given for all problems of a group, or for none";
    const std::string pointer =
        first_of({bad_pointer("a", from.a, 16), bad_pointer("b", from.b, 16), bad_pointer("mean_a", from.mean_a, 4),
                  with_mean_b ? bad_pointer("mean_b", from.mean_b, 4) : "",
                  partials.rows + partials.columns > 0 ? bad_pointer("the workspace", workspace, 16) : ""});
    if (!pointer.empty()) return pointer;
    const int number = arguments.count;
    Task& task = add_task(arguments, from.problem, schedule, from.a, from.b);
    if (from.pairs_per_clip > 0) task.pairs_per_clip = from.pairs_per_clip;
    // Where one block has a whole sum it writes the mean; otherwise partial sums go to the workspace.
    task.mean_a = from.mean_a;
    const bool split = with_mean_b && task.query_tiles > 1;
    task.columns = split ? columns : from.mean_b;
    task.column_scale = split ? 1.0F : 1.0F / static_cast<float>(from.problem.p);
    columns += split ? column_partials(from.problem) : 0;
    combined.mean_b[number] = from.mean_b;
    combined.row_blocks[number] = task.target_tiles > 1 ? task.query_tiles * task.n : 0;
    combined.column_blocks[number] = split ? ceil_divide(task.n * task.q, kCombineThreads) : 0;
    combine_blocks += combined.row_blocks[number] + combined.column_blocks[number];
  }
  if (arguments.count == 0) return "";
  arguments.workers = count_workers(arguments.tiles, schedule, device);
  if (combine_blocks > kMostBlocks) return "the sums of so many positions do not fit a launch: compute fewer pairs";

  bool overlaps = false;
  if (combine_blocks > 0 && device.compute_capability >= 90) {
    const cudaError_t error = query_combine_waits(overlaps);
    if (error != cudaSuccess) return words(error, "asking for the combining kernel's attributes");
  }
  const DataType dtype = tasks[0].problem.dtype;
  const cudaError_t error = with_mean_b
                                ? enqueue_correlate<Output::kRowsAndColumns>(dtype, schedule, arguments, stream)
                                : enqueue_correlate<Output::kRows>(dtype, schedule, arguments, stream);
  if (error != cudaSuccess || combine_blocks == 0) return words(error, "launching the correlation kernel");
  return words(enqueue(combine, combine_blocks, kCombineThreads, stream, combined, overlaps),
               "launching the combining kernel");
}

std::string launch_correlation_volume(const CorrelationProblem& problem, const Device& device, const void* a,
                                      const void* b, float* volume, bool relu, CUstream_st* stream) {
  const std::string reason = why_declined(problem, device);
  if (!reason.empty() || problem.n == 0) return reason;
  const std::string pointer =
      first_of({bad_pointer("a", a, 16), bad_pointer("b", b, 16), bad_pointer("volume", volume, 8)});
  if (!pointer.empty()) return pointer;
  const Schedule schedule = choose_schedule(problem.dtype, row_units(problem), Output::kVolume, device);
  CorrelateArguments arguments = {};
  add_task(arguments, problem, schedule, a, b).volume = volume;
  arguments.relu = relu;
  arguments.workers = count_workers(arguments.tiles, schedule, device);
  return words(enqueue_correlate<Output::kVolume>(problem.dtype, schedule, arguments, stream),
               "launching the correlation kernel");
}

}  // namespace avsbg
