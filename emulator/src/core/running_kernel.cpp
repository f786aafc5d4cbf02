#include "core/running_kernel.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>

namespace emulator {

struct Slot {
  std::atomic<bool> taken{false};
  std::atomic<const char*> name{nullptr};  // null between kernels; the others are valid while it is not
  RunningKernel::Describe describe = nullptr;
  const void* context = nullptr;
};

namespace {

constexpr size_t kSlots = 64;  // threads that run kernels at a time
constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
constexpr size_t kStackBytes = 64 << 10;

std::array<Slot, kSlots> g_slots;
std::array<struct sigaction, std::size(kSignals)> g_previous;

void write_text(const char* text) {
  if (write(STDERR_FILENO, text, std::strlen(text)) < 0) return;  // nothing else can be done here
}

void tell_and_go_on(int number, siginfo_t* info, void*) {
  for (size_t i = 0; i < std::size(kSignals); ++i) {
    if (kSignals[i] == number) sigaction(number, &g_previous[i], nullptr);  // the instruction is tried again, and ends there
  }
  for (const Slot& slot : g_slots) {
    const char* name = slot.name.load(std::memory_order_acquire);
    if (name == nullptr) continue;
    char line[256];
    snprintf(line, sizeof line, "ascend-emulator: signal %d while %s was running", number, name);
    write_text(line);
    static char text[4096];
    text[0] = '\0';
    if (slot.describe != nullptr) slot.describe(slot.context, text, sizeof text);
    write_text(text);
    write_text("\n");
  }
  if (info->si_code <= 0) raise(number);  // sent by somebody: no instruction repeats it
}

void install() {
  struct sigaction action {};
  action.sa_sigaction = tell_and_go_on;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &action, &g_previous[i]);
}

// A slot and a stack for handlers, for the life of the thread.
class ThreadSlot {
 public:
  ThreadSlot() {
    static std::once_flag installed;
    std::call_once(installed, install);
    for (Slot& slot : g_slots) {
      bool expected = false;
      if (!slot.taken.compare_exchange_strong(expected, true)) continue;
      slot_ = &slot;
      break;
    }
    stack_t present{};
    if (sigaltstack(nullptr, &present) == 0 && (present.ss_flags & SS_DISABLE) == 0) return;  // somebody else's
    stack_ = std::make_unique<char[]>(kStackBytes);
    const stack_t own{.ss_sp = stack_.get(), .ss_flags = 0, .ss_size = kStackBytes};
    sigaltstack(&own, nullptr);
  }
  ~ThreadSlot() {
    if (stack_ != nullptr) {
      const stack_t none{.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = kStackBytes};
      sigaltstack(&none, nullptr);
    }
    if (slot_ != nullptr) slot_->taken.store(false);
  }
  Slot* slot() const { return slot_; }

 private:
  Slot* slot_ = nullptr;
  std::unique_ptr<char[]> stack_;
};

}  // namespace

RunningKernel::RunningKernel(const char* name, Describe describe, const void* context) {
  thread_local ThreadSlot own;
  slot_ = own.slot();
  if (slot_ == nullptr) return;
  slot_->describe = describe;
  slot_->context = context;
  slot_->name.store(name, std::memory_order_release);
}

RunningKernel::~RunningKernel() {
  if (slot_ != nullptr) slot_->name.store(nullptr, std::memory_order_release);
}

}  // namespace emulator
