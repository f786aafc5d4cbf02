# Finds the headers and libraries of the installed torch and torch_npu without importing them:
# torch's own import would load torch_npu, which needs the very libraries that are built here.
execute_process(
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/locate_packages.py
  OUTPUT_VARIABLE PACKAGE_DIRS ERROR_VARIABLE LOCATE_ERROR RESULT_VARIABLE LOCATE_STATUS OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT LOCATE_STATUS EQUAL 0)
  message(FATAL_ERROR "${LOCATE_ERROR}")
endif()
list(GET PACKAGE_DIRS 0 TORCH_DIR)
list(GET PACKAGE_DIRS 1 TORCH_NPU_DIR)
list(GET PACKAGE_DIRS 2 TORCH_SERIES)

set(TORCH_INCLUDE_DIRS ${TORCH_DIR}/include ${TORCH_DIR}/include/torch/csrc/api/include)
set(TORCH_LIBRARIES ${TORCH_DIR}/lib/libc10.so ${TORCH_DIR}/lib/libtorch_cpu.so)
set(CANN_INCLUDE_DIRS
  ${TORCH_NPU_DIR}/include  # hccl.h includes its own files by their path from here
  ${TORCH_NPU_DIR}/include/third_party/acl/inc
  ${TORCH_NPU_DIR}/include/third_party/hccl/inc)
