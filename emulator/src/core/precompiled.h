// What most files of libascendcl, libatb and libhccl include, parsed once for all of them (see CMakeLists.txt).
#pragma once

#include <acl/acl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>
