// Where the modelled time of streams goes, by name of task: what a step waits for, read beside the launches.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace emulator {

// On a stream's thread. `name` is static storage, as of Task::name().
void add_modeled_time(const char* name, int64_t ns);

std::map<std::string, uint64_t> modeled_time_ns();  // of all streams, ended ones included
void reset_modeled_time();

}  // namespace emulator
