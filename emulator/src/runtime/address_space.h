// Addresses of emulated device memory and what backs them.
//
// One range is reserved per process. With ASCEND_EMULATOR_PROTECT_MEMORY=1 that range stays inaccessible and its
// memory is mapped at a constant distance, where only host_address() looks: a host read of device memory then faults
// as it does with a card.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdint>

namespace emulator {

// Of addresses: 16 TiB, far above any machine's device memory. A thread sanitizer needs most addresses for itself.
#ifdef __SANITIZE_THREAD__
inline constexpr size_t kArenaBytes = size_t{1} << 38;
#else
inline constexpr size_t kArenaBytes = size_t{1} << 44;
#endif

// Reserves addresses; nothing is readable there yet. Throws Failure when the range is used up.
void* reserve_addresses(size_t size_bytes, size_t alignment);
void release_addresses(void* address, size_t size_bytes);

// Private zero pages, taken from the host only when touched.
void back_with_zero_pages(void* address, size_t size_bytes);
// Pages of a file descriptor, shared with whoever else maps them.
void back_with_file(void* address, size_t size_bytes, int file, size_t offset);
// Gives the pages back; the addresses stay reserved.
void remove_backing(void* address, size_t size_bytes);
// Grows whenever pages are given back: what was known to be allocated before has to be looked up again.
uint64_t backing_generation();

}  // namespace emulator
