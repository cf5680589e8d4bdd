// Notes for AddressSanitizer and ThreadSanitizer about fibers and about accesses that they cannot see.
// Without a sanitizer, all of it is empty.
#pragma once

#include <cstddef>

// GCC defines __SANITIZE_*__ for a file that is instrumented. The engine is not, under ThreadSanitizer (its own
// bookkeeping would look like races), so the build says which sanitizer the program has.
#if defined(EMULATION_TSAN)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void __tsan_read_range(void* address, unsigned long size);
void __tsan_write_range(void* address, unsigned long size);
void __tsan_ignore_thread_begin();
void __tsan_ignore_thread_end();
}
#elif defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation::sanitizers {

#if defined(EMULATION_TSAN)

// Switching orders nothing: only the barriers of the kernel do.
class FiberState {
 public:
  FiberState(char*, std::size_t) : own_(__tsan_create_fiber(0)) {}
  void before_resume() {
    scheduler_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(own_, kNoSynchronisation);
  }
  void after_resume() {}
  void entered() {}
  void before_yield(bool /*ended*/) { __tsan_switch_to_fiber(scheduler_, kNoSynchronisation); }
  void after_yield() {}

 private:
  static constexpr unsigned kNoSynchronisation = 1;
  void* own_;
  void* scheduler_ = nullptr;
};

// In its scope the engine's own memory is not looked at: ThreadSanitizer intercepts malloc and memcpy everywhere.
class Unseen {
 public:
  Unseen() { __tsan_ignore_thread_begin(); }
  ~Unseen() { __tsan_ignore_thread_end(); }
  Unseen(const Unseen&) = delete;
  Unseen& operator=(const Unseen&) = delete;
};

inline void acquire(void* what) { __tsan_acquire(what); }
inline void release(void* what) { __tsan_release(what); }
inline void reads(const void* from, std::size_t size) { __tsan_read_range(const_cast<void*>(from), size); }
inline void writes(void* to, std::size_t size) { __tsan_write_range(to, size); }
inline void poison(void*, std::size_t) {}
inline void unpoison(void*, std::size_t) {}

#else

#if defined(__SANITIZE_ADDRESS__)
class FiberState {
 public:
  FiberState(char* stack, std::size_t size) : stack_(stack), size_(size) {}
  void before_resume() { __sanitizer_start_switch_fiber(&scheduler_fake_, stack_, size_); }
  void after_resume() { __sanitizer_finish_switch_fiber(scheduler_fake_, nullptr, nullptr); }
  void entered() { __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack_, &scheduler_size_); }
  void before_yield(bool ended) {
    __sanitizer_start_switch_fiber(ended ? nullptr : &own_fake_, scheduler_stack_, scheduler_size_);
  }
  void after_yield() { __sanitizer_finish_switch_fiber(own_fake_, &scheduler_stack_, &scheduler_size_); }

 private:
  char* stack_;
  std::size_t size_;
  void* own_fake_ = nullptr;
  void* scheduler_fake_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  std::size_t scheduler_size_ = 0;
};
inline void poison(void* from, std::size_t size) { __asan_poison_memory_region(from, size); }
inline void unpoison(void* from, std::size_t size) { __asan_unpoison_memory_region(from, size); }
#else
class FiberState {
 public:
  FiberState(char*, std::size_t) {}
  void before_resume() {}
  void after_resume() {}
  void entered() {}
  void before_yield(bool /*ended*/) {}
  void after_yield() {}
};
inline void poison(void*, std::size_t) {}
inline void unpoison(void*, std::size_t) {}
#endif
class Unseen {
 public:
  Unseen() {}  // not defaulted: a variable of this type is meant to be there and not used
};
inline void acquire(void*) {}
inline void release(void*) {}
inline void reads(const void*, std::size_t) {}
inline void writes(void*, std::size_t) {}

#endif

}  // namespace emulation::sanitizers
