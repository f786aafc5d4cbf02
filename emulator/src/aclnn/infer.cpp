#include "aclnn/infer.h"

#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

namespace emulator::aclnn {
namespace {

thread_local bool t_inferring = false;

struct Inferring {
  Inferring() { t_inferring = true; }
  ~Inferring() { t_inferring = false; }
};

}  // namespace

bool is_inferring() { return t_inferring; }

void infer(const Operator& op, const void* args) {
  const Inferring inferring;
  const c10::InferenceMode no_autograd;
  try {
    op.kernel(args);
  } catch (const c10::NotImplementedError&) {
    // ATen cannot tell the result's sizes of this function; the launch will.
  } catch (const c10::Error& error) {
    fail(kParamInvalid, "%s", error.what_without_backtrace());
  } catch (const Failure& failure) {
    throw Failure(kParamInvalid, failure.what());
  }
}

}  // namespace emulator::aclnn
