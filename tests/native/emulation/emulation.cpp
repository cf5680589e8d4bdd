#include "emulation.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "bank_conflicts.h"
#include "fiber.h"
#include "mma.h"
#include "sanitizers.h"

namespace emulation {

Index3 thread_index, block_index;
Options options;
Statistics statistics;

namespace {

constexpr int kLanes = 32;
constexpr int kMostThreads = 128;  // ThreadSanitizer follows only so many fibers
constexpr std::size_t kArenaBytes = 48 * 1024;  // what a block may have without asking for more

alignas(128) unsigned char arena[kArenaBytes];
std::size_t arena_used = 0;
// What ThreadSanitizer knows a thread's start, its end and the barrier by.
char start_token, end_token, barrier_token;

enum class State { kReady, kAtBarrier, kInWarp, kEnded };

struct Copy {
  void* to;
  const void* from;
  bool inside;
};

struct Thread {
  Fiber fiber;
  State state = State::kEnded;
  bool waited = false;           // for the grid before
  const char* waiting_for = "";  // the warp-wide instruction
  WarpOperand operand[2];        // one instruction's, while slower lanes still read the last one's
  int instructions = 0;
  float result[4];
  std::vector<std::vector<Copy>> groups;  // of asynchronous copies; the last is open
  std::vector<SharedAccess> accesses;
};

struct Block {
  std::vector<std::unique_ptr<Thread>> threads;
  unsigned count = 0;
  unsigned running = 0;
};
Block block;
// Of grids that overlap with the ones before: ThreadSanitizer must not take them for threads of those.
std::vector<std::unique_ptr<Thread>> overlapping_threads;

Thread& self() { return *block.threads[block.running]; }
Thread& lane_of_warp(int lane) { return *block.threads[block.running / kLanes * kLanes + lane]; }

// Runs one thread until it waits or ends.
void resume(unsigned thread) {
  block.running = thread;
  thread_index = {thread, 0, 0};
  block.threads[thread]->fiber.resume();
}

// Lets every lane of a warp run to its next wait. False when there was nothing to do.
bool advance(unsigned warp) {
  const auto lane = [warp](int i) { return warp * kLanes + (options.order == Order::kReverse ? kLanes - 1 - i : i); };
  bool moved = false;
  for (int i = 0; i < kLanes; ++i) {
    if (block.threads[lane(i)]->state != State::kReady) continue;
    resume(lane(i));
    moved = true;
  }
  const Thread& first = *block.threads[lane(0)];
  for (int i = 1; i < kLanes; ++i) {
    const Thread& other = *block.threads[lane(i)];
    if (other.state != first.state ||
        (first.state == State::kInWarp && std::strcmp(other.waiting_for, first.waiting_for) != 0))
      fail("the lanes of a warp have parted: some are at " + std::string(first.waiting_for) + ", some elsewhere");
  }
  if (first.state != State::kInWarp) return moved;
  if (std::strcmp(first.waiting_for, "mma") == 0) {
    Thread* threads[kLanes];
    WarpOperand operands[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      threads[i] = block.threads[warp * kLanes + i].get();
      operands[i] = threads[i]->operand[threads[i]->instructions % 2];
    }
    float d[kLanes][4];
    multiply_warp(operands, d);
    for (int i = 0; i < kLanes; ++i) std::memcpy(threads[i]->result, d[i], sizeof d[i]);
  }
  for (int i = 0; i < kLanes; ++i) block.threads[warp * kLanes + i]->state = State::kReady;
  return true;
}

// Waits, as a lane, until the whole warp has come to the same instruction. Returns the operands of lane `i` by i.
void join_warp(const char* instruction, const WarpOperand& operand) {
  const sanitizers::Unseen unseen;
  Thread& thread = self();
  ++thread.instructions;
  thread.operand[thread.instructions % 2] = operand;
  thread.waiting_for = instruction;
  thread.state = State::kInWarp;
  thread.fiber.yield();
}
const WarpOperand& operand_of(int lane) { return lane_of_warp(lane).operand[self().instructions % 2]; }

void run_block(const std::function<void()>& kernel, bool overlaps) {
  const sanitizers::Unseen unseen;
  std::memset(arena, 0xff, sizeof arena);
  arena_used = 0;
  sanitizers::release(&start_token);
  for (unsigned i = 0; i < block.count; ++i) {
    Thread& thread = *block.threads[i];
    thread.state = State::kReady;
    thread.waited = false;
    thread.groups.assign(1, {});
    thread.accesses.clear();
    thread.fiber.start([&thread, &kernel, overlaps] {
      sanitizers::acquire(&start_token);
      if (!overlaps) sanitizers::acquire(&end_token);
      kernel();
      const sanitizers::Unseen unseen;
      for (const auto& group : thread.groups)
        if (!group.empty()) fail("a thread has ended while its asynchronous copies were under way");
      if (overlaps && !thread.waited) fail("a thread has ended without waiting for the grid that its own overlaps with");
      sanitizers::release(&end_token);
      thread.state = State::kEnded;
    });
  }
  const unsigned warps = block.count / kLanes;
  for (bool ended = false; !ended;) {
    for (bool moved = true; moved;) {
      moved = false;
      for (unsigned i = 0; i < warps; ++i) {
        const unsigned warp = options.order == Order::kReverse ? warps - 1 - i : i;
        if (options.order == Order::kInterleaved) {
          moved |= advance(warp);
        } else {
          while (advance(warp)) moved = true;
        }
      }
    }
    // Nobody can go on without the others.
    unsigned at_barrier = 0;
    for (unsigned i = 0; i < block.count; ++i) at_barrier += block.threads[i]->state == State::kAtBarrier;
    if (at_barrier != 0 && at_barrier != block.count) fail("some threads wait at a barrier that others never reach");
    ended = at_barrier == 0;
    for (unsigned i = 0; i < block.count && !ended; ++i) block.threads[i]->state = State::kReady;
  }
  for (unsigned warp = 0; warp < warps; ++warp) {
    const std::vector<SharedAccess>* lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = &block.threads[warp * kLanes + i]->accesses;
    count_conflicts(lanes, statistics.shared);
  }
  sanitizers::unpoison(arena, sizeof arena);
  ++statistics.blocks;
}

// Notes that the running thread has come to a barrier or wait; true if the site is to be left out.
bool skipped(const char* kind, const char* file, int line) {
  const sanitizers::Unseen unseen;
  const char* slash = std::strrchr(file, '/');
  const std::string site = std::string(slash == nullptr ? file : slash + 1) + ":" + std::to_string(line);
  ++statistics.sites[std::string(kind) + " " + site];
  return site == options.skip;
}

}  // namespace

void fail(const std::string& what) {
  std::fprintf(stderr, "emulation: block (%u, %u), thread %u: %s\n", block_index.x, block_index.y, thread_index.x,
               what.c_str());
  std::fflush(nullptr);
  std::_Exit(3);
}

void run_grid(Index3 grid, unsigned threads, const std::function<void()>& kernel, bool overlaps) {
  if (threads == 0 || threads % kLanes != 0 || threads > kMostThreads)
    fail("a block of " + std::to_string(threads) + " threads: must be whole warps and at most 128 threads");
  if (overlaps) block.threads.swap(overlapping_threads);
  while (block.threads.size() < threads) block.threads.push_back(std::make_unique<Thread>());
  block.count = threads;
  for (unsigned y = 0; y < grid.y; ++y)
    for (unsigned x = 0; x < grid.x; ++x) {
      block_index = {x, y, 0};
      run_block(kernel, overlaps);
    }
  if (overlaps) block.threads.swap(overlapping_threads);
}

void wait_for_previous_grid(const char* file, int line) {
  if (skipped("wait", file, line)) return;
  sanitizers::acquire(&end_token);
  self().waited = true;
}

void synchronize() { sanitizers::acquire(&end_token); }

void* shared_memory(std::size_t size) {
  if (size > kArenaBytes) fail(std::to_string(size) + " bytes of shared memory: more than 48 KiB");
  arena_used = size;
  sanitizers::poison(arena + size, kArenaBytes - size);
  return arena;
}

void barrier(const char* file, int line) {
  if (skipped("barrier", file, line)) return;
  sanitizers::release(&barrier_token);
  self().state = State::kAtBarrier;
  self().fiber.yield();
  sanitizers::acquire(&barrier_token);
}

void touch_shared(const char* kind, const void* at, std::size_t size) {
  const sanitizers::Unseen unseen;
  const auto offset = static_cast<const unsigned char*>(at) - arena;
  if (offset < 0 || offset + size > arena_used)
    fail(std::string(kind) + " outside shared memory: offset " + std::to_string(offset));
  if (offset % size != 0) fail(std::string(kind) + " is not aligned: offset " + std::to_string(offset));
  self().accesses.push_back({kind, static_cast<std::uint32_t>(offset), static_cast<std::uint32_t>(size)});
}

void copy_async(void* to, const void* from, bool inside) {
  touch_shared("copy", to, 16);
  sanitizers::writes(to, 16);
  const sanitizers::Unseen unseen;
  if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0) fail("an asynchronous copy from an unaligned address");
  std::memset(to, 0xff, 16);
  self().groups.back().push_back({to, from, inside});
}

void copy_commit() {
  const sanitizers::Unseen unseen;
  self().groups.emplace_back();
}

void copy_wait(int pending, const char* file, int line) {
  if (skipped("wait", file, line)) return;
  auto& groups = self().groups;
  for (std::size_t i = 0; i + 1 + static_cast<std::size_t>(pending) < groups.size(); ++i) {
    for (const Copy& copy : groups[i]) {
      sanitizers::writes(copy.to, 16);
      if (copy.inside) sanitizers::reads(copy.from, 16);
      const sanitizers::Unseen unseen;
      copy.inside ? std::memcpy(copy.to, copy.from, 16) : std::memset(copy.to, 0, 16);
    }
    const sanitizers::Unseen unseen;
    groups[i].clear();
  }
}

void ldmatrix_x4(std::uint32_t (&registers)[4], const void* row) {
  touch_shared("ldmatrix", row, 16);
  WarpOperand operand;
  operand.row = row;
  join_warp("ldmatrix", operand);
  const int lane = static_cast<int>(thread_index.x % kLanes);
  for (int matrix = 0; matrix < 4; ++matrix) {
    const auto* from = static_cast<const unsigned char*>(operand_of(matrix * 8 + lane / 4).row) + lane % 4 * 4;
    sanitizers::reads(from, 4);
    std::memcpy(&registers[matrix], from, 4);
  }
}

float shuffle_xor(float value, int lanes) {
  WarpOperand operand;
  operand.value = value;
  join_warp("shuffle", operand);
  return operand_of(static_cast<int>(thread_index.x % kLanes) ^ lanes).value;
}

void mma(Mma shape, float (&d)[4], const std::uint32_t* a, const std::uint32_t* b) {
  WarpOperand operand;
  operand.shape = shape;
  std::memcpy(operand.a, a, sizeof(std::uint32_t) * registers_of_a(shape));
  std::memcpy(operand.b, b, sizeof(std::uint32_t) * registers_of_b(shape));
  std::memcpy(operand.c, d, sizeof operand.c);
  join_warp("mma", operand);
  std::memcpy(d, self().result, sizeof operand.c);
}

}  // namespace emulation
