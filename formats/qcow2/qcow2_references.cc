#include "formats/qcow2/qcow2_references.h"

#include <algorithm>
#include <array>

namespace underlay {
namespace {

struct UseName {
  std::string_view name;
  std::string_view code;
};
// In the order of Qcow2Use.
constexpr std::array kNames = {
    UseName{"header", "header"},
    UseName{"L1 table", "l1-table"},
    UseName{"L2 table", "l2-table"},
    UseName{"refcount table", "refcount-table"},
    UseName{"refcount block", "refcount-block"},
    UseName{"snapshot table", "snapshot-table"},
    UseName{"bitmap", "bitmap"},
    UseName{"LUKS header", "luks-header"},
    UseName{"data", "cluster"},
    UseName{"compressed data", "compressed-cluster"},
};

bool is_shared(Qcow2Use use) {
  return use == Qcow2Use::kL2Table || use == Qcow2Use::kData || use == Qcow2Use::kCompressed;
}

}  // namespace

std::string_view qcow2_use_name(Qcow2Use use) { return kNames[static_cast<size_t>(use)].name; }
std::string_view qcow2_use_code(Qcow2Use use) { return kNames[static_cast<size_t>(use)].code; }

bool Qcow2Uses::overlap() const {
  if (count() < 2) return false;
  size_t kinds = 0;
  bool alone = false;
  for (size_t i = 0; i < kNames.size(); ++i) {
    const auto use = static_cast<Qcow2Use>(i);
    if (!has(use)) continue;
    ++kinds;
    alone = alone || !is_shared(use);
  }
  return kinds > 1 || alone;
}

std::string Qcow2Uses::names() const {
  std::string names;
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (!has(static_cast<Qcow2Use>(i))) continue;
    if (!names.empty()) names += ", ";
    names += kNames[i].name;
  }
  return names;
}

Qcow2References::Qcow2References(uint64_t clusters, uint64_t window)
    : clusters_(clusters), window_(window) {}

void Qcow2References::begin(uint64_t first) {
  first_ = first;
  next_.reset();
  uses_.assign(static_cast<size_t>(std::min(window_, clusters_ - first)), Qcow2Uses());
}

}  // namespace underlay
