#include "fiber.h"

#include <cstdint>
#include <cstdlib>

#include "sanitizers.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulation {
namespace {

constexpr std::size_t kStackBytes = std::size_t{1} << 18;
Fiber* starting = nullptr;  // the fiber whose first instruction is about to run

#if defined(__x86_64__)
// Saves the registers that a callee must keep, swaps stacks, restores. swapcontext does the same seven times slower,
// since it also asks the kernel for the signal mask.
extern "C" void emulation_switch(void** save, void* load);
asm(R"(
.text
.globl emulation_switch
.type emulation_switch, @function
emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulation_switch, .-emulation_switch
)");
using Registers = void*;
void switch_to(Registers& save, Registers& load) { emulation_switch(&save, load); }
void prepare(Registers& registers, char* stack, void (*entry)()) {
  auto** top = reinterpret_cast<void**>(stack + kStackBytes);
  *--top = nullptr;  // what would be entry's return address: it never returns
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  registers = top;
}
#else
using Registers = ucontext_t;
void switch_to(Registers& save, Registers& load) { swapcontext(&save, &load); }
void prepare(Registers& registers, char* stack, void (*entry)()) {
  getcontext(&registers);
  registers.uc_stack.ss_sp = stack;
  registers.uc_stack.ss_size = kStackBytes;
  registers.uc_link = nullptr;
  makecontext(&registers, entry, 0);
}
#endif

}  // namespace

struct Fiber::Context {
  Registers own{}, scheduler{};
  char* stack = static_cast<char*>(std::aligned_alloc(64, kStackBytes));
  std::function<void()> entry;
  bool ended = true;
  sanitizers::FiberState sanitizer{stack, kStackBytes};
};

Fiber::Fiber() : context_(new Context) {}

Fiber::~Fiber() {
  std::free(context_->stack);
  delete context_;
}

void Fiber::run(Fiber* fiber) {
  fiber->context_->sanitizer.entered();
  fiber->context_->entry();
  fiber->context_->ended = true;
  fiber->yield();
  std::abort();  // resume never continues a fiber that has ended
}

void Fiber::start(std::function<void()> entry) {
  context_->entry = std::move(entry);
  context_->ended = false;
  prepare(context_->own, context_->stack, [] { run(starting); });
}

bool Fiber::resume() {
  starting = this;
  context_->sanitizer.before_resume();
  switch_to(context_->scheduler, context_->own);
  context_->sanitizer.after_resume();
  return !context_->ended;
}

void Fiber::yield() {
  context_->sanitizer.before_yield(context_->ended);
  switch_to(context_->own, context_->scheduler);
  context_->sanitizer.after_yield();
}

}  // namespace emulation
