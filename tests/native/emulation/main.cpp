// Runs the launchers of runtime/native/cuda on the emulation, for the tests in tests/native/cuda.
//
//     emulated mean DTYPE N P Q C SM_COUNT WITH_MEAN_B       < a b  > line mean_a [mean_b]
//     emulated volume DTYPE N P Q C SM_COUNT RELU            < a b  > line volume
//     emulated group DTYPE SM_COUNT WITH_MEAN_B [N P Q C PAIRS_PER_CLIP]...  < a b of each  > line mean_a [mean_b] ...
//         With PAIRS_PER_CLIP one tensor of N / PAIRS_PER_CLIP clips takes the place of a and b; Q is P.
//     emulated plan DTYPE SM_COUNT [N P Q C]...              > line; the numbers of tiles and of workers
//     emulated schedules [DTYPE C OUTPUT CAPABILITY]...      > line; resident, units and blocks_per_sm, a line for each
//     emulated mma SHAPE                                     < registers of a, b, c by lane  > line d by lane
//     emulated ldmatrix STRIDE                               < 32 rows of 16 bytes  > line registers by lane
//     emulated declined DTYPE N P Q C COMPUTE_CAPABILITY     > line; its error says why
//     emulated workspace DTYPE N P Q C WITH_MEAN_B           > line; the number of bytes
//
// DTYPE is the number of DataType. Tensors are raw bytes. `line` is one line of JSON: what happened. Options come from
// the environment: EMULATION_ORDER (forward, reverse, interleaved) and EMULATION_SKIP (file:line).
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "correlation.h"
#include "plan.h"
#include "ptx.cuh"

namespace {

using avsbg::CorrelationProblem;
using avsbg::CorrelationTask;
using avsbg::Device;

// Its size is exactly what is asked for, so that AddressSanitizer sees the first byte beyond it.
template <class T>
std::unique_ptr<T[]> filled_with_nan(std::int64_t count) {
  std::unique_ptr<T[]> memory(new T[static_cast<std::size_t>(count)]);
  std::memset(memory.get(), 0xff, sizeof(T) * static_cast<std::size_t>(count));
  return memory;
}

template <class T>
std::unique_ptr<T[]> read(std::int64_t count) {
  auto memory = filled_with_nan<T>(count);
  const auto size = static_cast<std::size_t>(count);
  if (std::fread(memory.get(), sizeof(T), size, stdin) != size) emulation::fail("standard input ended early");
  return memory;
}

template <class T>
void write(const T* values, std::int64_t count) {
  std::fwrite(values, sizeof(T), static_cast<std::size_t>(count), stdout);
}

void print_line(const std::string& error) {
  emulation::synchronize();
  const auto& statistics = emulation::statistics;
  std::printf("{\"error\": \"%s\", \"launches\": %lld, \"overlapping\": %lld, \"blocks\": %lld, \"sites\": {",
              error.c_str(), static_cast<long long>(statistics.launches),
              static_cast<long long>(statistics.overlapping), static_cast<long long>(statistics.blocks));
  const char* comma = "";
  for (const auto& [site, count] : statistics.sites) {
    std::printf("%s\"%s\": %lld", comma, site.c_str(), static_cast<long long>(count));
    comma = ", ";
  }
  std::printf("}, \"shared\": {");
  comma = "";
  for (const auto& [kind, count] : statistics.shared) {
    std::printf("%s\"%s\": {\"accesses\": %lld, \"conflicts\": %lld}", comma, kind.c_str(),
                static_cast<long long>(count.accesses), static_cast<long long>(count.conflicts));
    comma = ", ";
  }
  std::printf("}}\n");
}

CorrelationProblem problem_of(char** words) {
  CorrelationProblem problem;
  problem.dtype = static_cast<avsbg::DataType>(std::atoi(words[0]));
  problem.n = std::atoll(words[1]);
  problem.p = std::atoll(words[2]);
  problem.q = std::atoll(words[3]);
  problem.c = std::atoll(words[4]);
  return problem;
}

int correlate(bool mean, char** words) {
  const CorrelationProblem problem = problem_of(words);
  const Device device = {__CUDA_ARCH__ / 10, std::atoi(words[5])};
  const bool flag = std::atoi(words[6]) != 0;
  const bool wide = problem.dtype == avsbg::DataType::kFloat32 || problem.dtype == avsbg::DataType::kTf32;
  const std::int64_t element = wide ? 4 : 2;
  const auto a = read<unsigned char>(problem.n * problem.p * problem.c * element);
  const auto b = read<unsigned char>(problem.n * problem.q * problem.c * element);
  std::string error;
  if (mean) {
    const auto mean_a = filled_with_nan<float>(problem.n * problem.p);
    const auto mean_b = filled_with_nan<float>(problem.n * problem.q);
    const CorrelationTask task = {problem, a.get(), b.get(), mean_a.get(), flag ? mean_b.get() : nullptr};
    const auto workspace = filled_with_nan<unsigned char>(
        static_cast<std::int64_t>(avsbg::mean_correlations_workspace_size(&task, 1, flag)));
    error = avsbg::launch_mean_correlations(&task, 1, device, workspace.get(), nullptr);
    print_line(error);
    write(mean_a.get(), problem.n * problem.p);
    if (flag) write(mean_b.get(), problem.n * problem.q);
  } else {
    const auto volume = filled_with_nan<float>(problem.n * problem.p * problem.q);
    error = avsbg::launch_correlation_volume(problem, device, a.get(), b.get(), volume.get(), flag, nullptr);
    print_line(error);
    write(volume.get(), problem.n * problem.p * problem.q);
  }
  return error.empty() ? 0 : 1;
}

int correlate_group(int count, char** words) {
  const auto dtype = static_cast<avsbg::DataType>(std::atoi(words[0]));
  const Device device = {__CUDA_ARCH__ / 10, std::atoi(words[1])};
  const bool with_mean_b = std::atoi(words[2]) != 0;
  std::vector<std::unique_ptr<unsigned char[]>> maps;
  std::vector<std::unique_ptr<float[]>> means;
  std::vector<CorrelationTask> tasks;
  for (int i = 3; i + 4 < count; i += 5) {
    CorrelationTask task;
    auto& [n, p, q, c, type] = task.problem;
    n = std::atoll(words[i]), p = std::atoll(words[i + 1]), q = std::atoll(words[i + 2]), c = std::atoll(words[i + 3]);
    type = dtype;
    task.pairs_per_clip = std::atoll(words[i + 4]);
    const std::int64_t row = c * avsbg::element_size(dtype);
    if (task.pairs_per_clip > 0) {
      maps.push_back(read<unsigned char>((n + n / task.pairs_per_clip) * p * row));
      task.a = maps.back().get();
      task.b = maps.back().get() + p * row;
    } else {
      maps.push_back(read<unsigned char>(n * p * row));
      task.a = maps.back().get();
      maps.push_back(read<unsigned char>(n * q * row));
      task.b = maps.back().get();
    }
    means.push_back(filled_with_nan<float>(n * p));
    task.mean_a = means.back().get();
    means.push_back(filled_with_nan<float>(n * q));
    task.mean_b = with_mean_b ? means.back().get() : nullptr;
    tasks.push_back(task);
  }
  const int number = static_cast<int>(tasks.size());
  const auto workspace = filled_with_nan<unsigned char>(
      static_cast<std::int64_t>(avsbg::mean_correlations_workspace_size(tasks.data(), number, with_mean_b)));
  const std::string error =
      avsbg::launch_mean_correlations(tasks.data(), number, device, workspace.get(), nullptr);
  print_line(error);
  for (const auto& task : tasks) {
    write(task.mean_a, task.problem.n * task.problem.p);
    if (with_mean_b) write(task.mean_b, task.problem.n * task.problem.q);
  }
  return error.empty() ? 0 : 1;
}

int print_plan(int count, char** words) {
  const auto dtype = static_cast<avsbg::DataType>(std::atoi(words[0]));
  const Device device = {__CUDA_ARCH__ / 10, std::atoi(words[1])};
  std::int64_t tiles = 0;
  avsbg::Schedule schedule = {};
  for (int i = 2; i + 3 < count; i += 4) {
    const CorrelationProblem problem = {std::atoll(words[i]), std::atoll(words[i + 1]), std::atoll(words[i + 2]),
                                        std::atoll(words[i + 3]), dtype};
    schedule = avsbg::choose_schedule(dtype, avsbg::row_units(problem), avsbg::Output::kRowsAndColumns, device);
    tiles += avsbg::count_tiles(problem, schedule.targets);
  }
  print_line("");
  std::printf("%lld %lld\n", static_cast<long long>(tiles),
              static_cast<long long>(avsbg::count_workers(tiles, schedule, device)));
  return 0;
}

int print_schedules(int count, char** words) {
  print_line("");
  for (int i = 0; i + 3 < count; i += 4) {
    const CorrelationProblem problem = {1, 1, 1, std::atoll(words[i + 1]),
                                        static_cast<avsbg::DataType>(std::atoi(words[i]))};
    const avsbg::Schedule schedule =
        avsbg::choose_schedule(problem.dtype, avsbg::row_units(problem),
                               static_cast<avsbg::Output>(std::atoi(words[i + 2])), {std::atoi(words[i + 3]), 1});
    std::printf("%d %d %d\n", schedule.resident, schedule.units, schedule.blocks_per_sm);
  }
  return 0;
}

// One warp, one instruction: what the tests hold against the published register layouts.
void mma_kernel(const std::string* shape, const std::uint32_t (*a)[4], const std::uint32_t (*b)[2], float (*d)[4]) {
  using namespace avsbg::ptx;
  const unsigned lane = threadIdx.x;
  if (*shape == "k8_f16") mma_k8_f16(d[lane], a[lane][0], a[lane][1], b[lane][0]);
  if (*shape == "k16_f16") mma_k16_f16(d[lane], a[lane], b[lane]);
  if (*shape == "k16_bf16") mma_k16_bf16(d[lane], a[lane], b[lane]);
  if (*shape == "k8_tf32") mma_k8_tf32(d[lane], a[lane], b[lane]);
}

struct Rows {
  uint4 units[512];
};

// Lane l gives row l, which lies l * stride units into shared memory.
void ldmatrix_kernel(const uint4* rows, int stride, std::uint32_t (*registers)[4]) {
  AVSBG_SHARED(Rows, shared);
  const unsigned lane = threadIdx.x;
  shared.units[lane * stride] = rows[lane];
  __syncthreads();
  avsbg::ptx::ldmatrix_x4(registers[lane], &shared.units[lane * stride]);
}

int probe_mma(const std::string& shape) {
  const auto a = read<std::uint32_t[4]>(32);
  const auto b = read<std::uint32_t[2]>(32);
  const auto d = read<float[4]>(32);
  cudaLaunchConfig_t config = {};
  config.blockDim = dim3(32);
  cudaLaunchKernelEx(&config, mma_kernel, &shape, a.get(), b.get(), d.get());
  print_line("");
  write(d.get(), 32);
  return 0;
}

int probe_ldmatrix(int stride) {
  const auto rows = read<uint4>(32);
  const auto registers = filled_with_nan<std::uint32_t[4]>(32);
  cudaLaunchConfig_t config = {};
  config.blockDim = dim3(32);
  cudaLaunchKernelEx(&config, ldmatrix_kernel, rows.get(), stride, registers.get());
  print_line("");
  write(registers.get(), 32);
  return 0;
}

}  // namespace

int main(int count, char** words) {
  if (const char* order = std::getenv("EMULATION_ORDER")) {
    using emulation::Order;
    const std::string name = order;
    if (name != "forward" && name != "reverse" && name != "interleaved") emulation::fail("unknown order " + name);
    emulation::options.order = name == "forward"   ? Order::kForward
                               : name == "reverse" ? Order::kReverse
                                                   : Order::kInterleaved;
  }
  if (const char* skip = std::getenv("EMULATION_SKIP")) emulation::options.skip = skip;
  const std::string what = count > 1 ? words[1] : "";
  if (what == "mean" && count == 9) return correlate(true, words + 2);
  if (what == "volume" && count == 9) return correlate(false, words + 2);
  if (what == "group" && count > 4) return correlate_group(count - 2, words + 2);
  if (what == "plan" && count > 4) return print_plan(count - 2, words + 2);
  if (what == "schedules") return print_schedules(count - 2, words + 2);
  if (what == "mma" && count == 3) return probe_mma(words[2]);
  if (what == "ldmatrix" && count == 3) return probe_ldmatrix(std::atoi(words[2]));
  if (what == "declined" && count == 8) {
    const Device device = {std::atoi(words[7]), 1};
    print_line(avsbg::why_declined(problem_of(words + 2), device));
    return 0;
  }
  if (what == "workspace" && count == 8) {
    print_line("");
    const CorrelationTask task = {problem_of(words + 2)};
    std::printf("%zu\n", avsbg::mean_correlations_workspace_size(&task, 1, std::atoi(words[7]) != 0));
    return 0;
  }
  std::fprintf(stderr, "usage: see the top of main.cpp\n");
  return 2;
}
