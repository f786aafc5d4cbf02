// Attributes of operators of the older aclop interface. torch_npu fills them in for every operator; the operators that are
// executed here have whole numbers alone, so that of the others the names are kept, for the message of a refused one.
#include "aclop/attributes.h"

#include "core/errors.h"
#include "core/object_pool.h"

using emulator::guarded;

namespace {

emulator::ObjectPool<aclopAttr>& pool() {
  static auto& instance = *new emulator::ObjectPool<aclopAttr>;  // threads outlive static destructors
  return instance;
}

aclError add(const char* function, aclopAttr* attributes, const char* name, const int64_t* number = nullptr) {
  return guarded(function, [&] {
    if (attributes == nullptr || name == nullptr)
      emulator::fail(ACL_ERROR_INVALID_PARAM, "attr and attrName must not be null.");
    if (!pool().holds(attributes)) {
      emulator::fail(ACL_ERROR_INVALID_PARAM, "attr %p does not exist: it was destroyed or never created.",
                     static_cast<const void*>(attributes));
    }
    attributes->names.emplace_back(name);
    if (number != nullptr) attributes->whole_numbers[name] = *number;
  });
}

}  // namespace

bool emulator::is_live(const aclopAttr* attributes) { return pool().holds(attributes); }

extern "C" {

aclopAttr* aclopCreateAttr() {
  aclopAttr* attributes = nullptr;
  guarded("aclopCreateAttr", [&] { attributes = pool().make(); });
  return attributes;
}
void aclopDestroyAttr(const aclopAttr* attributes) { pool().destroy(attributes); }

aclError aclopSetAttrBool(aclopAttr* attributes, const char* name, uint8_t value) {
  const int64_t number = value != 0;
  return add("aclopSetAttrBool", attributes, name, &number);
}
aclError aclopSetAttrInt(aclopAttr* attributes, const char* name, int64_t value) {
  return add("aclopSetAttrInt", attributes, name, &value);
}
aclError aclopSetAttrFloat(aclopAttr* attributes, const char* name, float) {
  return add("aclopSetAttrFloat", attributes, name);
}
aclError aclopSetAttrString(aclopAttr* attributes, const char* name, const char*) {
  return add("aclopSetAttrString", attributes, name);
}
aclError aclopSetAttrDataType(aclopAttr* attributes, const char* name, aclDataType) {
  return add("aclopSetAttrDataType", attributes, name);
}
aclError aclopSetAttrListBool(aclopAttr* attributes, const char* name, int, const uint8_t*) {
  return add("aclopSetAttrListBool", attributes, name);
}
aclError aclopSetAttrListInt(aclopAttr* attributes, const char* name, int, const int64_t*) {
  return add("aclopSetAttrListInt", attributes, name);
}
aclError aclopSetAttrListFloat(aclopAttr* attributes, const char* name, int, const float*) {
  return add("aclopSetAttrListFloat", attributes, name);
}
aclError aclopSetAttrListListInt(aclopAttr* attributes, const char* name, int, const int*, const int64_t* const[]) {
  return add("aclopSetAttrListListInt", attributes, name);
}

}  // extern "C"
