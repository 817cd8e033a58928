#include "io/http/aws_credentials.h"

#include <doctest/doctest.h>

#include "io/http/aws_files.h"
#include "io/http/command_helper.h"

namespace underlay {
namespace {

using namespace std::chrono_literals;

TEST_CASE("aws files: the keys of one profile") {
  constexpr std::string_view kText =
      "# comment\nlost = 1\n[default]\nregion = a\n; comment\n[ profile lab ] # one\r\nregion = b "
      "\r\n"
      "s3 =\n  addressing_style = path\n\tendpoint_url=http://x\nendpoint_url = http://y\n"
      "nonsense\n[broken\nregion = d\n[lab2]\nregion = c";
  CHECK(aws_profile(kText, "default") == AwsProfile{{"region", "a"}});
  CHECK(aws_profile(kText, "lab") == AwsProfile{{"region", "b"},
                                                {"s3", ""},
                                                {"s3.addressing_style", "path"},
                                                {"s3.endpoint_url", "http://x"},
                                                {"endpoint_url", "http://y"}});
  CHECK(aws_profile(kText, "lab2") == AwsProfile{{"region", "c"}});
  CHECK(aws_profile(kText, "none").empty());
  CHECK(aws_profile("", "default").empty());
}

TEST_CASE("aws credentials: the answer of a process") {
  const auto keys = parse_process_credentials(
      R"({"Version":1,"AccessKeyId":"k","SecretAccessKey":"s","SessionToken":"t",)"
      R"("Expiration":"2026-01-31T12:00:00Z"})");
  REQUIRE(keys);
  CHECK(keys->key_id == "k");
  CHECK(keys->secret == "s");
  CHECK(keys->token == "t");
  CHECK(keys->expires == std::chrono::system_clock::from_time_t(1769860800));
  const auto lasting =
      parse_process_credentials(R"({"Version":1,"AccessKeyId":"k","SecretAccessKey":"s"})");
  REQUIRE(lasting);
  CHECK_FALSE(lasting->expires);
}

TEST_CASE("aws credentials: what a process must not answer") {
  for (
      const char* text :
      {"", "[]", "{", R"({"AccessKeyId":"k","SecretAccessKey":"s"})",
       R"({"Version":2,"AccessKeyId":"k","SecretAccessKey":"s"})",
       R"({"Version":1,"AccessKeyId":"k"})", R"({"Version":1,"AccessKeyId":1,"SecretAccessKey":2})",
       R"({"Version":1,"AccessKeyId":"k","SecretAccessKey":"s","Expiration":"soon"})",
       R"({"Version":1,"AccessKeyId":"k","SecretAccessKey":"s","Expiration":"2026-01-31T12:00:00"})",
       R"({"Version":1,"AccessKeyId":"k","SecretAccessKey":"s","Expiration":"2026-01-31T12:00:00."})"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_process_credentials(text));
  }
  CHECK(parse_process_credentials(R"({"Version":1,"AccessKeyId":"k","SecretAccessKey":"s",)"
                                  R"("Expiration":"2026-01-31T12:00:00.123Z"})"));
}

TEST_CASE("aws credentials: times that the clock cannot count are the first and the last") {
  const auto expires = [](const char* time) {
    const auto keys = parse_process_credentials(
        fmt::format(R"({{"Version": 1, "AccessKeyId": "k", "SecretAccessKey": "s",)"
                    R"( "Expiration": "{}"}})",
                    time));
    REQUIRE(keys);
    return std::chrono::system_clock::to_time_t(*keys->expires);
  };
  CHECK(expires("1013-01-31T12:00:00Z") == 0);
  CHECK(expires("9999-12-31T23:59:59Z") == 7'258'118'400);
}

TEST_CASE("aws credentials: they are renewed before they end") {
  const auto now = std::chrono::system_clock::now();
  CHECK(renewal_time(now, now + 1h) == now + 55min);
  CHECK(renewal_time(now, now + 4s) == now + 3s);
  CHECK(renewal_time(now, now) == now);
  CHECK(renewal_time(now, now - 1h) == now - 1h);
}

TEST_CASE("command helper: it runs a command again and again") {
  auto helper = CommandHelper::start("echo $((1 + 1)); exec >&-");
  REQUIRE(helper);
  CHECK((*helper)->run() == std::string("2\n"));
  CHECK((*helper)->run() == std::string("2\n"));
}

TEST_CASE("command helper: a command that closes its output and goes on is waited for") {
  const auto helper = CommandHelper::start("echo one; exec >&-; sleep 0.2; exit 3");
  REQUIRE(helper);
  CHECK((*helper)->run().error().message.find("exit status 3") != std::string::npos);
  CHECK((*helper)->run().error().message.find("exit status 3") != std::string::npos);
}

TEST_CASE("command helper: what fails is said") {
  const auto error_of = [](const std::string& command) {
    auto helper = CommandHelper::start(command);
    REQUIRE(helper);
    const auto output = (*helper)->run();
    REQUIRE_FALSE(output);
    return output.error().message;
  };
  CHECK(error_of("exit 7").find("exit status 7") != std::string::npos);
  CHECK(error_of("kill -9 $$").find("signal 9") != std::string::npos);
  CHECK(error_of("yes").find("65536 bytes") != std::string::npos);
}

}  // namespace
}  // namespace underlay
