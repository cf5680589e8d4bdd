// Runs every path that this CPU has against a float64 reference, without ONNX Runtime: for sanitizers, and for other
// processors under an emulator. Prints one line per path; exit status 1 if any check failed.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "correlation.h"
#include "dispatch.h"

using namespace avsbg::cpu;

namespace {

int failures = 0;

void check(bool good, const Path& path, const std::string& what) {
  if (good) return;
  ++failures;
  std::printf("FAILED %s: %s\n", path.name, what.c_str());
}

// Threads that take the tasks from either end, so that the order differs from run to run.
struct Workers {
  explicit Workers(int count) : count(count) {}
  ~Workers() { std::free(memory); }

  Resources lend() {
    return {[this](std::size_t tasks, const std::function<void(std::size_t)>& task) {
              std::atomic<std::size_t> next{0};
              const auto work = [&](bool backwards) {
                for (std::size_t i; (i = next++) < tasks;) task(backwards ? tasks - 1 - i : i);
              };
              std::vector<std::thread> threads;
              const bool backwards = count > 1;
              for (int i = 1; i < count; ++i) threads.emplace_back(work, backwards);
              work(backwards);
              for (std::thread& thread : threads) thread.join();
            },
            [this](std::size_t bytes) {
              largest = std::max(largest, bytes);
              std::free(memory);
              // Filled with NaNs: a sum that read what nobody wrote would show.
              memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
              std::memset(memory, 0xff, bytes);
              return memory;
            }};
  }

  int count;
  void* memory = nullptr;
  std::size_t largest = 0;
};

struct Reference {
  std::vector<double> volume, mean_a, mean_b;
};

Reference reference(std::int64_t n, std::int64_t p, std::int64_t q, std::int64_t c, const std::vector<float>& a,
                    const std::vector<float>& b) {
  Reference r{std::vector<double>(n * p * q), std::vector<double>(n * p), std::vector<double>(n * q)};
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t row = 0; row < p; ++row) {
      for (std::int64_t column = 0; column < q; ++column) {
        double sum = 0;
        for (std::int64_t k = 0; k < c; ++k) {
          sum += double(a[(i * p + row) * c + k]) * double(b[(i * q + column) * c + k]);
        }
        r.volume[(i * p + row) * q + column] = sum;
        const double rectified = sum < 0 ? 0 : sum;
        r.mean_a[i * p + row] += rectified / double(q);
        r.mean_b[i * q + column] += rectified / double(p);
      }
    }
  }
  return r;
}

bool close(const std::vector<float>& got, const std::vector<double>& wanted, double tolerance) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double w = wanted[i];
    if (std::isnan(w) ? !std::isnan(got[i]) : std::isinf(w) ? double(got[i]) != w : !(std::abs(got[i] - w) <= tolerance)) {
      std::printf("  [%zu]: %g, not %g\n", i, double(got[i]), w);
      return false;
    }
  }
  return true;
}

bool same_bits(const std::vector<float>& left, const std::vector<float>& right) {
  return left.empty() || std::memcmp(left.data(), right.data(), left.size() * sizeof(float)) == 0;
}

float rounded_to_bfloat(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

void run_shape(const Path& path, std::int64_t n, std::int64_t p, std::int64_t q, std::int64_t c, bool special) {
  const std::string name = "N " + std::to_string(n) + ", P " + std::to_string(p) + ", Q " + std::to_string(q) +
                           ", C " + std::to_string(c) + (special ? ", not finite" : "");
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> a(n * p * c), b(n * q * c);
  // Values that bf16 holds exactly: all paths then multiply the same numbers.
  for (float& x : a) x = rounded_to_bfloat(normal(random));
  for (float& x : b) x = rounded_to_bfloat(normal(random));
  if (special) {
    // In the last row and column, beside the padding, whose zeros must not meet them.
    a.back() = std::numeric_limits<float>::infinity();
    b[(q - 1) * c] = std::numeric_limits<float>::infinity();
    if (n * p > 1) a.front() = std::numeric_limits<float>::quiet_NaN();
  }
  const Reference wanted = reference(n, p, q, c, a, b);
  const double tolerance = 1e-5 * std::sqrt(double(c)) * 4;

  const Problem problem{n, p, q, c, DataType::kFloat32, a.data(), b.data()};
  std::vector<float> mean_a(n * p), mean_b(n * q), again_a(n * p), again_b(n * q), volume(n * p * q);
  Workers one(1), three(3);
  mean_correlation(path, problem, mean_a.data(), mean_b.data(), one.lend());
  check(close(mean_a, wanted.mean_a, tolerance), path, "mean_a, " + name);
  check(close(mean_b, wanted.mean_b, tolerance), path, "mean_b, " + name);
  mean_correlation(path, problem, again_a.data(), again_b.data(), three.lend());
  check(same_bits(mean_a, again_a) && same_bits(mean_b, again_b), path, "the bits depend on the threads, " + name);
  mean_correlation(path, problem, again_a.data(), nullptr, three.lend());
  check(same_bits(mean_a, again_a), path, "mean_a alone, " + name);
  correlation_volume(path, problem, false, volume.data(), three.lend());
  check(close(volume, wanted.volume, tolerance), path, "volume, " + name);
  check(std::max(one.largest, three.largest) <= kWorkspaceBytes, path, "workspace, " + name);
}

}  // namespace

int main() {
  const std::int64_t shapes[][4] = {{0, 3, 4, 8},    {1, 1, 1, 1},    {2, 1, 33, 8},   {3, 50, 1, 24},  {2, 49, 49, 128},
                                    {1, 15, 31, 7},  {1, 113, 97, 9}, {5, 13, 17, 16}, {1, 230, 65, 33}, {1, 64, 250, 512},
                                    {1, 7, 4500, 8}, {1, 7300, 5, 8}};
  for (const Path* path : available_paths()) {
    const int before = failures;
    for (const auto& s : shapes) {
      run_shape(*path, s[0], s[1], s[2], s[3], false);
      if (s[0] > 0) run_shape(*path, s[0], s[1], s[2], s[3], true);
    }
    std::printf("%s: %s\n", path->name, failures == before ? "good" : "FAILED");
  }
  return failures == 0 ? 0 : 1;
}
