// Loops shared between the thread that calls and helpers on cores that are free.
#pragma once

#include <cstdint>
#include <functional>

namespace emulator {

// Calls body(from, to) on ranges that cover [begin, end), each `grain` or more long except perhaps the last. Whoever is
// free takes the next range: the caller, and as many helpers as the claim below leaves. The caller never waits for a helper
// to begin, and a helper without work sleeps: on a machine of few cores they serve the program's own threads as well.
// (OpenMP's threads wait for one another at both ends of a loop, and spin between loops for milliseconds.)
// What a body throws is thrown to the caller, once the ranges in hand are done.
// The calling thread's own OpenMP loops (ATen's) run on it alone from its first loop or share_threads() on: their barriers,
// too, would spin on cores that the host's thread needs.
void parallel_for(int64_t begin, int64_t end, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

void share_threads();  // for a thread that may meet ATen before its first parallel_for

// Answers how many threads the calling thread's loops may use, and leaves its OpenMP with one. Only a library that is
// linked with torch can ask torch, so it hands its answer in; until one does, OMP_NUM_THREADS or the cores count.
using ClaimThreads = int64_t (*)();
void set_claim_threads(ClaimThreads claim);

}  // namespace emulator
