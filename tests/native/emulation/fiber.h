// Contexts that hand the processor to each other by hand: the threads of an emulated block.
// Address and thread sanitizers are told of every switch, so that both see each fiber as a thread of its own.
#pragma once

#include <cstddef>
#include <functional>

namespace emulation {

class Fiber {
 public:
  // A fiber with a stack of its own, to be given an entry by `start`.
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next `resume` runs `entry` from the beginning. The fiber's previous run must have ended.
  void start(std::function<void()> entry);
  // Called by the scheduler: runs the fiber until it yields or ends. False when it has ended.
  bool resume();
  // Called inside the fiber: back to the scheduler.
  void yield();

 private:
  struct Context;
  static void run(Fiber* fiber);
  Context* context_;
};

}  // namespace emulation
