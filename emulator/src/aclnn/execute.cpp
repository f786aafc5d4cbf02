// The one place where aclnn meets ATen's dispatcher and exceptions.
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include "aclnn/launch.h"
#include "math/parallel.h"

namespace emulator::aclnn {

void execute(const Operator& op, const void* args) {
  try {
    share_threads();
    const c10::InferenceMode no_autograd;  // thread-local, and user code may share the thread: restored on return
    op.kernel(args);
  } catch (const c10::Error& error) {  // what() would add ATen's own backtrace
    fail(kAicoreException, "%s failed on the device: %s", op.name, error.what_without_backtrace());
  }
}

}  // namespace emulator::aclnn
