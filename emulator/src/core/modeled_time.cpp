#include "core/modeled_time.h"

#include <memory>
#include <unordered_map>
#include <vector>

#include "core/spin_lock.h"

namespace emulator {
namespace {

// One for each thread that runs tasks; its lock is contended only while somebody reads.
struct Ledger {
  SpinLock lock;
  std::unordered_map<const char*, uint64_t> ns_by_name;
};

struct Ledgers {
  SpinLock lock;
  std::vector<std::shared_ptr<Ledger>> all;
};

Ledgers& ledgers() {
  static auto& instance = *new Ledgers;
  return instance;
}

Ledger& ledger_of_this_thread() {
  thread_local const std::shared_ptr<Ledger> ledger = [] {
    auto created = std::make_shared<Ledger>();
    std::lock_guard guard(ledgers().lock);
    ledgers().all.push_back(created);
    return created;
  }();
  return *ledger;
}

template <typename Visit>
void for_each_ledger(Visit&& visit) {
  std::lock_guard guard(ledgers().lock);
  for (const auto& ledger : ledgers().all) {
    std::lock_guard inner(ledger->lock);
    visit(*ledger);
  }
}

}  // namespace

void add_modeled_time(const char* name, int64_t ns) {
  if (ns <= 0) return;
  Ledger& ledger = ledger_of_this_thread();
  std::lock_guard guard(ledger.lock);
  ledger.ns_by_name[name] += static_cast<uint64_t>(ns);
}

std::map<std::string, uint64_t> modeled_time_ns() {
  std::map<std::string, uint64_t> totals;  // each library has its own copy of a name, hence the merge by text
  for_each_ledger([&](Ledger& ledger) {
    for (const auto& [name, ns] : ledger.ns_by_name) totals[name] += ns;
  });
  return totals;
}

void reset_modeled_time() {
  for_each_ledger([](Ledger& ledger) { ledger.ns_by_name.clear(); });
}

}  // namespace emulator
