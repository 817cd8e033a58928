#include "tools/img/finding_json.h"

#include <nlohmann/json.hpp>

namespace underlay::img {

std::string_view kind_name(Finding::Kind kind) {
  switch (kind) {
    case Finding::Kind::kCorruption:
      return "corruption";
    case Finding::Kind::kLeak:
      return "leak";
    case Finding::Kind::kFailure:
      return "failure";
    case Finding::Kind::kNotice:
      return "notice";
  }
  return "";
}

nlohmann::ordered_json finding_json(const Finding& finding) {
  nlohmann::ordered_json json{
      {"kind", kind_name(finding.kind)}, {"code", finding.code}, {"message", finding.message}};
  if (finding.offset) json["offset"] = *finding.offset;
  return json;
}

}  // namespace underlay::img
