// The life of an emulated ATB operation: Setup validates as ATB does, Execute queues the device work on the stream.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "atb/abi.h"
#include "core/chips.h"
#include "core/errors.h"
#include "core/running_kernel.h"
#include "core/task.h"
#include "core/tensor.h"

namespace emulator {

// Throws a Failure that carries an ATB status; the message states the broken rule.
[[noreturn]] void reject(::atb::ErrorType status, const char* format, ...) __attribute__((format(printf, 2, 3)));

inline void require(bool holds, ::atb::ErrorType status, const char* rule) {
  if (!holds) reject(status, "%s", rule);
}

// Runs body; what it throws is logged as ATB logs (one line on stderr), kept for aclGetRecentErrMsg, and returned.
::atb::Status atb_guarded(const std::string& operation, const std::function<void()>& body) noexcept;

inline bool on_atlas_inference() { return chip().product == kAtlasInference; }  // 310P
inline bool on_a2_or_a3() { return (chip().product & (kA2 | kA3)) != 0; }       // ATB's "Is910B"

std::string describe(const ::atb::TensorDesc& desc);  // "float16 ND [2, 3]"
bool same_desc(const ::atb::TensorDesc& left, const ::atb::TensorDesc& right);
int64_t element_count(const ::atb::TensorDesc& desc);

// Where the CPU reads or writes a tensor on the device. Call when the task runs or is built, never for host tensors.
void* device_data(const ::atb::Tensor& tensor);

// An int32 vector that may lie on the host (copied when the task is built) or on the device (read when the task runs,
// so that a replayed graph sees new values).
class Lengths {
 public:
  explicit Lengths(const ::atb::Tensor& tensor);
  std::vector<int32_t> read() const;
  int64_t count() const { return count_; }

 private:
  std::vector<int32_t> host_;
  const void* device_ = nullptr;
  int64_t count_ = 0;
};

// One permitted combination of data types and formats: inputs, then outputs (the columns of ATB's atb_ops_info.ini).
struct Kind {
  aclDataType dtype;
  aclFormat format;
};
using Combination = std::vector<Kind>;

class AtbOperation : public ::atb::Operation {
 public:
  explicit AtbOperation(const char* name);

  std::string GetName() const final { return name_; }
  ::atb::Status InferShape(const ::atb::SVector<::atb::TensorDesc>& inputs,
                           ::atb::SVector<::atb::TensorDesc>& outputs) const final;
  uint32_t GetInputNum() const final { return static_cast<uint32_t>(input_count()); }
  uint32_t GetOutputNum() const final { return static_cast<uint32_t>(output_count()); }
  ::atb::Status Setup(const ::atb::VariantPack& pack, uint64_t& workspace_size, ::atb::Context* context) final;
  ::atb::Status Execute(const ::atb::VariantPack& pack, uint8_t* workspace, uint64_t workspace_size,
                        ::atb::Context* context) final;

 protected:
  using Descs = std::vector<::atb::TensorDesc>;
  using Tensors = ::atb::SVector<::atb::Tensor>;

  virtual size_t input_count() const = 0;
  virtual size_t output_count() const { return 1; }
  virtual std::vector<Combination> combinations() const = 0;
  virtual bool may_be_empty(size_t input) const { return false; }

  virtual void check_inputs(const Descs& inputs) const = 0;  // shapes and the chip's limits
  virtual Descs infer(const Descs& inputs) const = 0;        // shapes of the outputs
  // Rules that need host values or the outputs; by default outputs must be what infer() says.
  virtual void check_tensors(const Tensors& inputs, const Tensors& outputs) const;
  virtual TaskPtr launch(const Tensors& inputs, const Tensors& outputs) const = 0;

 private:
  void check_descs(const Descs& inputs, const Descs& outputs) const;

  aclrtStream stream_of_setup() const;

  const char* name_;
  const uint64_t serial_;  // tells it from one that had its address before
  // Of the latest Setup: while a graph is captured, Execute comes from another thread.
  std::atomic<aclrtStream> latest_stream_ = nullptr;
};

// A task made of functions. The name must have static storage.
class FunctionTask final : public Task {
 public:
  FunctionTask(const char* name, Work work, std::function<void()> body)
      : FunctionTask(name, [work] { return work; }, std::move(body)) {}
  // Work that depends on lengths in device memory is worked out when it is asked for.
  FunctionTask(const char* name, std::function<Work()> work, std::function<void()> body)
      : name_(name), work_(std::move(work)), body_(std::move(body)) {}
  const char* name() const override { return name_; }
  Work work() const override { return work_(); }
  void run() override {
    const RunningKernel told(name_, nullptr, nullptr);
    body_();
  }

 private:
  const char* name_;
  std::function<Work()> work_;
  std::function<void()> body_;
};

// The body of every CreateOperation: parameters that the chip or ATB refuses are reported here, before any tensor is
// seen.
template <typename Emulated, typename Parameters>
::atb::Status create(const char* name, const Parameters& parameters, ::atb::Operation** operation) {
  if (operation == nullptr) return ::atb::ERROR_INVALID_PARAM;
  return atb_guarded(name, [&] { *operation = new Emulated(parameters); });
}

}  // namespace emulator
