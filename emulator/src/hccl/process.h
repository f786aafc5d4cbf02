// Whether another process still runs. A process id alone may be reused, and a killed child stays visible as a zombie.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace emulator::hccl {

uint64_t process_start_ticks(pid_t pid);  // clock ticks since boot; 0 if there is no such process
bool process_is_alive(pid_t pid, uint64_t start_ticks);

}  // namespace emulator::hccl
