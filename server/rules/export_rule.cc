#include "server/rules/export_rule.h"

#include <fnmatch.h>

#include <charconv>
#include <limits>

#include "formats/comma_list.h"
#include "io/bytes.h"
#include "server/user_names.h"

namespace underlay {
namespace {

// A whole number above 0 with a suffix K, M, G or T, in powers of 1024, where `suffixes` allow it.
Result<uint64_t> parse_amount(std::string_view option, std::string_view key,
                              const std::string& text, std::string_view suffixes, uint64_t most) {
  std::string_view digits = text;
  unsigned shift = 0;
  const size_t suffix = digits.empty() ? std::string_view::npos : suffixes.find(digits.back());
  if (suffix != std::string_view::npos) {
    shift = 10 * (static_cast<unsigned>(suffix) + 1);
    digits.remove_suffix(1);
  }
  uint64_t number = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
  const auto amount = checked_mul(number, uint64_t{1} << shift);
  if (!whole || !amount || *amount == 0 || *amount > most) {
    return fail(ErrorKind::kUsage, "{}: {}=\"{}\" is no number from 1 to {}{}", option, key,
                printable(text, 80), most, suffixes.empty() ? "" : " (suffixes K, M, G, T)");
  }
  return *amount;
}

Result<void> take_field(std::string_view option, std::string_view key, const std::string& value,
                        ExportRule& rule) {
  constexpr uint64_t kMostBytes = std::numeric_limits<int64_t>::max();
  constexpr uint64_t kMostRequests = 1'000'000'000;
  if (key == "tls") {
    if (value != "require") {
      return fail(ErrorKind::kUsage, "{}: tls=\"{}\" is not require", option, printable(value, 80));
    }
    rule.needs_tls = true;
  } else if (key == "clients") {
    constexpr uint64_t kMostClients = std::numeric_limits<unsigned>::max();
    rule.clients = static_cast<unsigned>(TRY(parse_amount(option, key, value, "", kMostClients)));
  } else if (key == "bandwidth") {
    rule.bytes_per_second = TRY(parse_amount(option, key, value, "KMGT", kMostBytes));
  } else if (key == "requests") {
    rule.requests_per_second = TRY(parse_amount(option, key, value, "", kMostRequests));
  } else if (key == "user") {
    rule.peers.users.push_back(TRY(find_user(option, value)));
  } else if (key == "group") {
    rule.peers.groups.push_back(TRY(find_group(option, value)));
  } else if (key == "network") {
    rule.networks.push_back(TRY(parse_network(option, value)));
  } else {
    return fail(ErrorKind::kUsage,
                "{}: \"{}\" is none of tls, clients, bandwidth, requests, user, group, network",
                option, printable(key, 80));
  }
  return {};
}

}  // namespace

Result<void> ExportRule::check_access(int socket) const {
  const auto address = peer_address(socket);
  if (!address) return check_peer(socket, peers);
  if (networks.empty() && peers.all_may()) return {};
  for (const Network& network : networks) {
    if (network.contains(*address)) return {};
  }
  return fail(ErrorKind::kDenied, "its network may not use the export (--export-rule)");
}

Result<ExportRule> parse_export_rule(std::string_view option, std::string_view text) {
  const std::vector<std::string> parts = split_at_commas(text);
  ExportRule rule;
  rule.pattern = parts.front();
  if (parts.size() == 1) {
    return fail(ErrorKind::kUsage, "{}: \"{}\" is not PATTERN,KEY=VALUE", option,
                printable(text, 200));
  }
  for (size_t i = 1; i < parts.size(); ++i) {
    const size_t equals = parts[i].find('=');
    if (equals == std::string::npos) {
      return fail(ErrorKind::kUsage, "{}: \"{}\" is not KEY=VALUE", option,
                  printable(parts[i], 80));
    }
    TRY(take_field(option, std::string_view(parts[i]).substr(0, equals),
                   parts[i].substr(equals + 1), rule));
  }
  return rule;
}

ExportRule rule_of(const std::vector<ExportRule>& rules, const std::string& name) {
  for (const ExportRule& rule : rules) {
    if (::fnmatch(rule.pattern.c_str(), name.c_str(), 0) == 0) return rule;
  }
  return {};
}

}  // namespace underlay
