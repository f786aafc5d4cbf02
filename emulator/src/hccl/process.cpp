#include "hccl/process.h"

#include <cstdio>
#include <cstring>
#include <string>

namespace emulator::hccl {
namespace {

struct ProcessState {
  char state = 'X';
  unsigned long long start_ticks = 0;
};

// Fields 3 and 22 of /proc/<pid>/stat; the command before them may contain anything, but ends with the last ')'.
ProcessState read_state(pid_t pid) {
  ProcessState result;
  FILE* file = fopen(("/proc/" + std::to_string(pid) + "/stat").c_str(), "r");
  if (file == nullptr) return result;
  char line[1024];
  const size_t length = fread(line, 1, sizeof line - 1, file);
  fclose(file);
  line[length] = '\0';
  const char* rest = strrchr(line, ')');
  if (rest == nullptr) return result;
  sscanf(rest + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &result.state,
         &result.start_ticks);
  return result;
}

}  // namespace

uint64_t process_start_ticks(pid_t pid) { return read_state(pid).start_ticks; }

bool process_is_alive(pid_t pid, uint64_t start_ticks) {
  const ProcessState now = read_state(pid);
  return now.state != 'X' && now.state != 'Z' && now.start_ticks == start_ticks;
}

}  // namespace emulator::hccl
