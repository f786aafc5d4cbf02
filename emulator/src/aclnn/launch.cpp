// The two phases of every aclnn call, the cost of an operator that names none, and the executor's own functions.
#include "aclnn/launch.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "core/forms.h"
#include "core/memory.h"
#include "core/object_pool.h"

namespace emulator::aclnn {

TensorView DynamicTensor::resolve(const Dims& sizes) const {
  if (sizes.product() > view.storage_sizes.product() - view.storage_offset) {
    fail(kAicoreException, "the result has %lld elements, but the output has room for %lld.",
         static_cast<long long>(sizes.product()), static_cast<long long>(view.storage_sizes.product() - view.storage_offset));
  }
  TensorView resolved = view;
  resolved.sizes = sizes;
  resolved.strides = Dims(sizes.data(), sizes.size());
  int64_t stride = 1;
  for (int i = sizes.rank() - 1; i >= 0; --i) {
    resolved.strides[i] = stride;
    stride *= sizes[i];
  }
  if (is_live(descriptor)) {  // the caller waits for this launch, but other threads may destroy what is its
    descriptor->view.sizes = resolved.sizes;
    descriptor->view.strides = resolved.strides;
  }
  return resolved;
}

namespace {

// Whether there is a descriptor to copy: false for null. CANN follows what is none into memory; here it is refused.
template <typename Descriptor>
bool is_given(const Descriptor* from, const char* noun) {
  if (from == nullptr) return false;
  if (!is_live(from)) {
    fail(kParamInvalid, "the %s %p does not exist: it was destroyed or never created.", noun,
         static_cast<const void*>(from));
  }
  return true;
}

template <typename T, typename List>
void assign_array(Array<T>& to, const List* from) {
  if (is_given(from, "array")) to.assign(from->values.data(), from->values.size());
}

}  // namespace

void assign(TensorView& to, const aclTensor* from) {
  if (is_given(from, "tensor")) to = from->view;
}

void assign(DynamicTensor& to, const aclTensor* from) {
  assign(to.view, from);
  to.descriptor = const_cast<aclTensor*>(from);
}

void assign(Scalar& to, const aclScalar* from) {
  if (is_given(from, "scalar")) to = *from;
}

void assign(IntArray& to, const aclIntArray* from) { assign_array(to, from); }
void assign(FloatArray& to, const aclFloatArray* from) { assign_array(to, from); }
void assign(BoolArray& to, const aclBoolArray* from) { assign_array(to, from); }

void assign(std::string& to, const char* from) {
  if (from != nullptr) to = from;
}

void assign(TensorList& to, const aclTensorList* from) {
  if (!is_given(from, "list of tensors")) return;
  to.present = true;
  to.tensors.resize(from->tensors.size());
  for (size_t i = 0; i < to.tensors.size(); ++i) assign(to.tensors[i], from->tensors[i]);
}

void assign(ScalarList& to, const aclScalarList* from) {
  if (!is_given(from, "list of scalars")) return;
  to.present = true;
  to.scalars.resize(from->scalars.size());
  for (size_t i = 0; i < to.scalars.size(); ++i) assign(to.scalars[i], from->scalars[i]);
}

namespace {

void add_traffic(const TensorView& tensor, bool output, Work& work) {
  if (!tensor.defined()) return;
  const double bytes = static_cast<double>(size_in_bytes(tensor.sizes, tensor.dtype));
  if (output) {
    work.written_bytes += bytes;
    work.vector_flops += static_cast<double>(tensor.numel());
  } else {
    work.read_bytes += bytes;
  }
}

}  // namespace

Work vector_work(const Operator& op, const void* args) {
  Work work;
  for (size_t i = 0; i < op.parameter_count; ++i) {
    const Parameter& parameter = op.parameters[i];
    const void* field = static_cast<const char*>(args) + parameter.offset;
    switch (parameter.kind) {
      case ParameterKind::kTensor:
        add_traffic(*static_cast<const TensorView*>(field), parameter.output, work);
        break;
      case ParameterKind::kDynamicTensor:
        add_traffic(static_cast<const DynamicTensor*>(field)->view, true, work);
        break;
      case ParameterKind::kTensorList:
        for (const TensorView& tensor : *static_cast<const TensorList*>(field)) add_traffic(tensor, parameter.output, work);
        break;
      default:
        break;
    }
  }
  return work;
}

// A launch of any operator.
class LaunchBase : public Task {
 public:
  LaunchBase(const Operator& op) : op_(op) {}
  const char* name() const override { return op_.name; }
  const Operator& op() const { return op_; }
  virtual const void* args() const = 0;
  bool waits() const { return op_.has_dynamic_output; }  // phase 2 returns when the kernel has run

  Workspace workspace;
  void* workspace_address = nullptr;

 protected:
  const Operator& op_;
};

namespace {

// Executors between the phases: one that was used already, or never came from phase 1, is refused, where CANN leaves it
// undefined what it does.
ObjectPool<aclOpExecutor>& executors() {
  static auto& pool = *new ObjectPool<aclOpExecutor>;  // threads outlive static destructors
  return pool;
}

// The launch of an executor; the executor is gone. Null if there is no such executor (any more).
std::shared_ptr<LaunchBase> take_back(aclOpExecutor* executor) {
  if (!executors().holds(executor)) return nullptr;
  std::shared_ptr<LaunchBase> task = executor->task;
  return executors().destroy(executor) ? task : nullptr;  // of two threads, one has it
}

// The argument struct lies inside the task, so that a launch is one allocation; three sizes serve all operators.
template <size_t kCapacity>
class Launch final : public LaunchBase {
 public:
  Launch(const Operator& op, Fill fill, void* context) : LaunchBase(op) { fill(context, args_); }
  ~Launch() override { op_.destroy(args_); }
  void run() override {
    execute(op_, args_);
    if (workspace.bytes != 0) fill_workspace(op_.name, workspace_address, workspace.bytes);
  }
  void run_without_compute() override { execute_without_compute(op_, args_); }
  Work work() const override { return op_.work != nullptr ? op_.work(args_) : vector_work(op_, args_); }
  const void* args() const override { return args_; }

 private:
  alignas(std::max_align_t) std::byte args_[kCapacity];
};

template <size_t kCapacity>
aclOpExecutor* make_launch(const Operator& op, Fill fill, void* context) {
  auto task = std::make_shared<Launch<kCapacity>>(op, fill, context);
  validate(op, task->args());
  if (op.check != nullptr) op.check(task->args());
  if (op.workspace != nullptr) task->workspace = op.workspace(task->args());
  return executors().make(std::move(task));
}

constexpr size_t kSmall = 1024;    // three tensors and a scalar: nearly all
constexpr size_t kMedium = 3072;
constexpr size_t kLarge = 16384;  // fused attention has over 30 tensor arguments

}  // namespace

void fill_workspace(const char* name, void* workspace, uint64_t size_bytes) {
  constexpr uint64_t kFront = 1 << 20, kBack = 64 << 10;  // where an allocator puts what it gives out next
  constexpr int kPattern = 0x5a;
  try {
    check_device_range(workspace, size_bytes, "the workspace");
  } catch (const Failure& failure) {
    fail(kAicoreException, "%s writes its workspace, which was given back: %s", name, failure.what());
  }
  auto* memory = static_cast<char*>(host_address(workspace));
  std::memset(memory, kPattern, std::min(size_bytes, kFront));
  if (size_bytes > kFront + kBack) std::memset(memory + size_bytes - kBack, kPattern, kBack);
}

aclError prepare(const Operator& op, bool largest, uint64_t* workspace_size, aclOpExecutor** executor, Fill fill,
                 void* context) noexcept {
  return guarded(op.name, [&] {
    if (op.kernel == nullptr) refuse_unimplemented(op.name);
    if (workspace_size == nullptr || executor == nullptr) {
      fail(kParamNullptr, "%s must not be null.", executor == nullptr ? "executor" : "workspaceSize");
    }
    if (op.args_size <= kSmall) {
      *executor = make_launch<kSmall>(op, fill, context);
    } else if (op.args_size <= kMedium) {
      *executor = make_launch<kMedium>(op, fill, context);
    } else if (op.args_size <= kLarge) {
      *executor = make_launch<kLarge>(op, fill, context);
    } else {
      fail(kInnerError, "its arguments take %u bytes, more than a launch has room for.", op.args_size);
    }
    const Workspace& sizes = (*executor)->task->workspace;
    *workspace_size = largest ? sizes.most_bytes : sizes.bytes;
  });
}

namespace {

void add_form(const char* name, const TensorView& tensor, std::string& text) {
  if (tensor.defined()) text.append(" ").append(name).append("=").append(form_of(tensor));
}

// The tensors of a launch as core/forms.h writes them; of a list, the first.
std::string form_of_launch(const Operator& op, const void* args) {
  std::string text = op.name;
  for (size_t i = 0; i < op.parameter_count; ++i) {
    const Parameter& parameter = op.parameters[i];
    const void* field = static_cast<const char*>(args) + parameter.offset;
    if (parameter.kind == ParameterKind::kTensor) {
      add_form(parameter.name, *static_cast<const TensorView*>(field), text);
    } else if (parameter.kind == ParameterKind::kDynamicTensor) {
      add_form(parameter.name, static_cast<const DynamicTensor*>(field)->view, text);
    } else if (parameter.kind == ParameterKind::kTensorList) {
      for (const TensorView& tensor : *static_cast<const TensorList*>(field)) {
        add_form(parameter.name, tensor, text);
        break;
      }
    }
  }
  return text;
}

// The host would wait for a result that exists only when the graph is replayed.
void refuse_in_capture(aclrtStream stream) {
  aclmdlRICaptureStatus status = ACL_MODEL_RI_CAPTURE_STATUS_NONE;
  aclmdlRI graph = nullptr;
  if (aclmdlRICaptureGetInfo(stream, &status, &graph) != ACL_SUCCESS || status == ACL_MODEL_RI_CAPTURE_STATUS_NONE) return;
  fail(ACL_ERROR_RT_STREAM_CAPTURED, "its result has a size that only the device knows, so the host waits for it, which a "
                                     "captured stream does not allow: take it out of the graph.");
}

}  // namespace

aclError unimplemented(const char* name) noexcept {
  return guarded(name, [&] { refuse_unimplemented(name); });
}

aclError launch(const char* name, void* workspace, uint64_t workspace_size, aclOpExecutor* executor,
                aclrtStream stream) noexcept {
  return guarded(name, [&] {
    if (!executors().holds(executor)) {
      fail(kParamNullptr, "call %sGetWorkspaceSize first: the executor is null, was used already or never existed.", name);
    }
    LaunchBase& task = *executor->task;
    if (task.workspace.bytes > workspace_size || (task.workspace.bytes > 0 && workspace == nullptr)) {
      fail(kParamInvalid, "the workspace has %llu bytes, but phase 1 asked for %llu.",
           static_cast<unsigned long long>(workspace_size), static_cast<unsigned long long>(task.workspace.bytes));
    }
    task.workspace_address = workspace;
    if (records_forms()) record_form(form_of_launch(task.op(), task.args()));
    const bool waits = task.waits();
    if (waits) refuse_in_capture(stream);
    TaskPtr taken = take_back(executor);
    if (taken == nullptr) fail(kParamNullptr, "another thread has used the executor.");
    submit(stream, std::move(taken));
    if (!waits) return;
    const aclError status = aclrtSynchronizeStream(stream);
    if (status != ACL_SUCCESS) fail(status, "its result has a size that only the device knows, and waiting for it failed.");
  });
}

}  // namespace emulator::aclnn

extern "C" aclError aclDestroyAclOpExecutor(aclOpExecutor* executor) {
  emulator::aclnn::take_back(executor);
  return ACL_SUCCESS;
}
