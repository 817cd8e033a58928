#include "server/tls/authorization.h"

#include <fnmatch.h>

#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>

namespace underlay {
namespace {

using nlohmann::json;

constexpr size_t kMaxFile = 1 << 20;

Result<bool> read_policy(const json& object, bool otherwise) {
  if (!object.contains("policy")) return otherwise;
  const json& policy = object["policy"];
  if (policy == "allow") return true;
  if (policy == "deny") return false;
  return fail(ErrorKind::kMalformed, "policy {} is neither \"allow\" nor \"deny\"",
              printable(policy.dump(-1, ' ', true, json::error_handler_t::replace), 80));
}

}  // namespace

Result<Authorization> Authorization::load(const AuthzObject& object) {
  Authorization made;
  if (object.list_file.empty()) {
    made.rules_.push_back({.match = object.identity, .glob = false, .allow = true});
    return made;
  }
  std::ifstream file(object.list_file, std::ios::binary);
  if (!file) return in_file(fail_errno(errno, "cannot open"), object.list_file);
  std::string text(kMaxFile + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (file.bad() || text.size() > kMaxFile) {
    return in_file(fail(ErrorKind::kLimit, "cannot be read, or is longer than {} bytes", kMaxFile),
                   object.list_file);
  }
  auto parsed = parse(text);
  if (!parsed) return in_file(std::move(parsed).error(), object.list_file);
  return parsed;
}

Result<Authorization> Authorization::parse(std::string_view text) {
  const json list = json::parse(text, nullptr, false);
  if (!list.is_object()) return fail(ErrorKind::kMalformed, "is no JSON object of rules");
  Authorization made;
  made.otherwise_ = TRY(read_policy(list, false));
  const json rules = list.value("rules", json::array());
  if (!rules.is_array()) return fail(ErrorKind::kMalformed, "rules: is no array");
  for (const json& rule : rules) {
    if (!rule.is_object() || !rule.contains("match") || !rule["match"].is_string() ||
        !rule.contains("policy")) {
      return fail(ErrorKind::kMalformed, "rules: each needs \"match\" and \"policy\"");
    }
    const json format = rule.value("format", json("exact"));
    if (format != "exact" && format != "glob") {
      return fail(ErrorKind::kMalformed, "rules: a format is neither \"exact\" nor \"glob\"");
    }
    const bool allow = TRY(read_policy(rule, false));
    made.rules_.push_back(
        {.match = rule["match"].get<std::string>(), .glob = format == "glob", .allow = allow});
  }
  return made;
}

bool Authorization::allows(const std::string& identity) const {
  for (const Rule& rule : rules_) {
    const bool matches = rule.glob ? ::fnmatch(rule.match.c_str(), identity.c_str(), 0) == 0
                                   : rule.match == identity;
    if (matches) return rule.allow;
  }
  return otherwise_;
}

}  // namespace underlay
