// Callbacks that a stream hands to a thread of the program, which runs them in aclrtProcessReport.
#pragma once

#include <acl/acl.h>

#include <cstdint>

#include "core/deadline.h"

namespace emulator {

class Stream;

void subscribe_callbacks(uint64_t thread, Stream& stream);    // throws Failure(107011) if already subscribed
void unsubscribe_callbacks(uint64_t thread, Stream& stream);  // throws Failure(107011) if not subscribed
// Blocking: the stream goes on when the callback has returned. Throws Failure(107015) without a subscriber.
void launch_callback(Stream& stream, aclrtCallback function, void* data, bool blocking);
void process_one_callback(const Deadline& deadline);  // of the calling thread; throws Failure(107012), (107019)

}  // namespace emulator
