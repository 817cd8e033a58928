#include "tools/img/check_findings.h"

#include <fmt/format.h>

#include "tools/img/finding_json.h"
#include "tools/img/say.h"

namespace underlay::img {
namespace {

std::string_view label_of(Finding::Kind kind) {
  switch (kind) {
    case Finding::Kind::kCorruption:
      return "ERROR";
    case Finding::Kind::kLeak:
      return "Leak";
    case Finding::Kind::kFailure:
      return "FAILED";
    case Finding::Kind::kNotice:
      return "Notice";
  }
  return "";
}

}  // namespace

void FindingList::add(const Finding& finding) {
  if (!prints_) return listed_.push_back(finding_json(finding));
  say_line(fmt::format("{}: {}{}", label_of(finding.kind), finding.message,
                       finding.offset ? fmt::format(" (at byte {})", *finding.offset) : ""));
}

void FindingList::finish(uint64_t untold) const {
  if (prints_ && untold != 0) say_line(fmt::format("... and {} more", untold));
}

}  // namespace underlay::img
