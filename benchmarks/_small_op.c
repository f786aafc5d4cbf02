// One small operator through CANN's C interface, as torch_npu's dispatch calls it with the task queue off: descriptors of
// its tensors, both phases, descriptors destroyed. What is timed around these loops is the emulator's share and nothing else.
#include <stddef.h>
#include <stdint.h>

typedef void Handle;

extern Handle* aclCreateTensor(const int64_t* sizes, uint64_t rank, int type, const int64_t* strides, int64_t offset, int format,
                               const int64_t* storage_sizes, uint64_t storage_rank, void* data);
extern Handle* aclCreateScalar(void* value, int type);
extern int aclDestroyTensor(const Handle* tensor);
extern int aclDestroyScalar(const Handle* scalar);
extern int aclnnAddGetWorkspaceSize(const Handle* self, const Handle* other, const Handle* alpha, Handle* out, uint64_t* size,
                                    Handle** executor);
extern int aclnnAdd(void* workspace, uint64_t size, Handle* executor, Handle* stream);

enum { kFloat = 0, kFormatND = 2 };  // ACL_FLOAT, ACL_FORMAT_ND

static Handle* vector_of(void* data, int64_t count) {
  const int64_t stride = 1;
  return aclCreateTensor(&count, 1, kFloat, &stride, 0, kFormatND, &count, 1, data);
}

// out = a + b, `times` times, on float vectors in device memory. Returns the first error, or 0.
int add_repeatedly(void* a, void* b, void* out, int64_t count, int64_t times, Handle* stream) {
  float one = 1.0f;
  for (int64_t i = 0; i < times; ++i) {
    Handle* tensors[3] = {vector_of(a, count), vector_of(b, count), vector_of(out, count)};
    Handle* alpha = aclCreateScalar(&one, kFloat);
    uint64_t size = 0;
    Handle* executor = NULL;
    int error = aclnnAddGetWorkspaceSize(tensors[0], tensors[1], alpha, tensors[2], &size, &executor);
    if (error == 0) error = aclnnAdd(NULL, size, executor, stream);
    for (int t = 0; t < 3; ++t) aclDestroyTensor(tensors[t]);
    aclDestroyScalar(alpha);
    if (error != 0) return error;
  }
  return 0;
}
