// A block of CUDA threads on one processor: every thread is a fiber, and runs until it meets a barrier or a warp-wide
// instruction. See docs/emulation.md for what is and what is not modelled. One launch at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

namespace emulation {

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};

// Of the running thread.
extern Index3 thread_index, block_index;

// The order of threads, which changes what a missing barrier lets a thread see.
enum class Order { kForward, kReverse, kInterleaved };

struct Options {
  Order order = Order::kForward;
  std::string skip;  // "file.cuh:123": leave out the barriers and waits on this line
};
extern Options options;

// Counts since the program started.
struct AccessCount {
  std::int64_t accesses = 0;   // of a warp
  std::int64_t conflicts = 0;  // transactions beyond those that the width needs
};
struct Statistics {
  std::int64_t launches = 0;
  std::int64_t overlapping = 0;  // of them
  std::int64_t blocks = 0;
  std::map<std::string, std::int64_t> sites;  // "barrier file.cuh:123": how often a thread came by
  std::map<std::string, AccessCount> shared;  // by kind of access to shared memory
};
extern Statistics statistics;

// Ends the program with a message: what the kernel did could not happen, or would be undefined, on a device.
[[noreturn]] void fail(const std::string& what);

// Runs `kernel` for each thread of each block, one block after the other. A grid that overlaps with the ones before it
// runs after them too, but nothing orders its accesses behind theirs until its threads wait; each of them must.
void run_grid(Index3 grid, unsigned threads, const std::function<void()>& kernel, bool overlaps = false);
void wait_for_previous_grid(const char* file, int line);

// What the host does from here on comes after all that the grids did. Weak: a program whose grids all run in a module that
// it opens is not linked with this.
__attribute__((weak)) void synchronize();

// The block's shared memory, `size` bytes of NaN before its first thread starts.
void* shared_memory(std::size_t size);

// For each thread of the block to pass together. `site` is where it stands in the source.
void barrier(const char* file, int line);

// Checks that [at, at + size) lies in shared memory, is aligned, and remembers the access for the count of conflicts.
void touch_shared(const char* kind, const void* at, std::size_t size);

// Asynchronous copies of 16 bytes. From the issue to the wait that covers it, the destination holds NaN.
void copy_async(void* to, const void* from, bool inside);
void copy_commit();
void copy_wait(int pending, const char* file, int line);

// Warp-wide instructions: every lane must come, with the same instruction.
void ldmatrix_x4(std::uint32_t (&registers)[4], const void* row);
float shuffle_xor(float value, int lanes);

// d [16, 8] += a [16, K] * b [8, K] transposed. Registers as the PTX ISA lays them out; the sum of one instruction is
// taken in double and rounded once.
enum class Mma { kK8Fp16, kK16Fp16, kK16Bf16, kK8Tf32 };
void mma(Mma shape, float (&d)[4], const std::uint32_t* a, const std::uint32_t* b);

}  // namespace emulation
