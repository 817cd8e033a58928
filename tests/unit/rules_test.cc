// What the operator allows of single exports.
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/unique_fd.h"
#include "server/rules/export_rule.h"
#include "server/rules/rate_limit.h"

namespace underlay {
namespace {

ExportRule parsed(const std::string& text) {
  const auto rule = parse_export_rule("--export-rule", text);
  REQUIRE_MESSAGE(rule, (rule ? std::string() : rule.error().to_string()));
  return *rule;
}

void check_refused(const std::string& text, const std::string& part_of_message) {
  CAPTURE(text);
  const auto rule = parse_export_rule("--export-rule", text);
  REQUIRE_FALSE(rule);
  CHECK(rule.error().kind == ErrorKind::kUsage);
  CHECK_MESSAGE(rule.error().message.find(part_of_message) != std::string::npos,
                rule.error().message);
}

IpAddress address(const std::string& text) { return parse_network("test", text)->address; }

bool holds(const std::string& network, const std::string& member) {
  return parse_network("test", network)->contains(address(member));
}

}  // namespace

TEST_CASE("export rule: its keys") {
  const ExportRule rule = parsed(
      "*.vhd,tls=require,clients=4,bandwidth=50M,requests=1000,user=0,group=0,"
      "network=192.0.2.0/24,network=2001:db8::/32");
  CHECK(rule.pattern == "*.vhd");
  CHECK(rule.needs_tls);
  CHECK(rule.clients == 4);
  CHECK(rule.bytes_per_second == 50u << 20);
  CHECK(rule.requests_per_second == 1000);
  CHECK(rule.peers.users == std::vector<uid_t>{0});
  CHECK(rule.peers.groups == std::vector<gid_t>{0});
  CHECK(rule.networks.size() == 2);
  CHECK(parsed("a,,b,clients=1").pattern == "a,b");
}

TEST_CASE("export rule: what is no rule is told") {
  check_refused("disk", "is not PATTERN,KEY=VALUE");
  check_refused("disk,clients", "is not KEY=VALUE");
  check_refused("disk,colour=red", "is none of tls");
  check_refused("disk,tls=maybe", "is not require");
  for (const char* clients : {"0", "-1", "x", "", "4K", "99999999999"}) {
    check_refused(std::string("disk,clients=") + clients, "is no number from 1 to");
  }
  check_refused("disk,bandwidth=9999999T", "is no number from 1 to");
  check_refused("disk,network=192.0.2.0/33", "is no network");
  check_refused("disk,network=host", "is no network");
  check_refused("disk,user=no such user", "no such user");
}

TEST_CASE("export rule: the first that fits counts, and no rule allows all") {
  const std::vector<ExportRule> rules = {parsed("a*,clients=1"), parsed("*,clients=2")};
  CHECK(rule_of(rules, "abc").clients == 1);
  CHECK(rule_of(rules, "b").clients == 2);
  CHECK(rule_of(rules, "").clients == 2);
  CHECK(rule_of({}, "abc").clients == 0);
}

TEST_CASE("export rule: users are those of Unix sockets") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  const UniqueFd one(ends[0]);
  const UniqueFd other(ends[1]);
  CHECK(parsed("*,user=" + std::to_string(::getuid())).check_access(one.get()));
  const auto denied = parsed("*,user=" + std::to_string(::getuid() + 1)).check_access(one.get());
  REQUIRE_FALSE(denied);
  CHECK(denied.error().kind == ErrorKind::kDenied);
  CHECK(parsed("*,network=192.0.2.0/24").check_access(one.get()));
}

TEST_CASE("network: addresses within") {
  CHECK(holds("192.0.2.0/24", "192.0.2.255"));
  CHECK_FALSE(holds("192.0.2.0/24", "192.0.3.0"));
  CHECK(holds("192.0.2.128/25", "192.0.2.200"));
  CHECK_FALSE(holds("192.0.2.128/25", "192.0.2.127"));
  CHECK(holds("0.0.0.0/0", "10.1.2.3"));
  CHECK_FALSE(holds("0.0.0.0/0", "2001:db8::1"));
  CHECK(holds("::/0", "10.1.2.3"));
  CHECK(holds("2001:db8::/33", "2001:db8:7fff::1"));
  CHECK_FALSE(holds("2001:db8::/33", "2001:db8:8000::1"));
  CHECK(holds("127.0.0.1", "127.0.0.1"));
  CHECK_FALSE(holds("127.0.0.1", "127.0.0.2"));
}

TEST_CASE("rate limit: bytes and requests in a second") {
  using std::chrono::milliseconds;
  using std::chrono::seconds;
  const RateLimit::Clock::time_point start{seconds(1000)};
  const auto admitted_in = [&](RateLimit& limit, uint64_t bytes, seconds time) {
    unsigned admitted = 0;
    for (auto now = start; now < start + time; now += milliseconds(1)) {
      while (limit.take(bytes, now) == RateLimit::Clock::duration::zero()) ++admitted;
    }
    return admitted;
  };
  RateLimit requests(0, 100);
  CHECK(admitted_in(requests, 1 << 20, seconds(10)) == doctest::Approx(1000).epsilon(0.02));
  RateLimit bytes(1 << 20, 0);
  CHECK(admitted_in(bytes, 64 << 10, seconds(10)) == doctest::Approx(160).epsilon(0.03));
  RateLimit both(1 << 20, 100);  // the narrower one holds
  CHECK(admitted_in(both, 512, seconds(10)) == doctest::Approx(1000).epsilon(0.02));
  RateLimit none(0, 0);
  CHECK_FALSE(none.is_limited());
  CHECK(none.take(1 << 30, start) == RateLimit::Clock::duration::zero());
}

TEST_CASE("rate limit: who must wait is told for how long, and a long request passes once") {
  const RateLimit::Clock::time_point start{std::chrono::seconds(1000)};
  RateLimit limit(1 << 20, 0);
  CHECK(limit.take(32 << 20, start) == RateLimit::Clock::duration::zero());
  const auto wait = limit.take(1, start);
  CHECK(wait > std::chrono::seconds(31));
  CHECK(limit.take(1, start + wait) == RateLimit::Clock::duration::zero());
}

}  // namespace underlay
