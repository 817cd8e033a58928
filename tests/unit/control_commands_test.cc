// The commands of the control socket, without a socket.
#include "server/control/control_commands.h"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <array>
#include <nlohmann/json.hpp>

#include "io/memory_source.h"
#include "io/unique_fd.h"

namespace underlay {
namespace {

using Json = nlohmann::json;

struct Fixture : private ControlHost {
  std::shared_ptr<Export> make(const std::string& name, const std::string& description) {
    auto opened =
        open_disk(OpenedFile{.source = std::make_shared<MemorySource>(std::vector<std::byte>(1024)),
                             .path = "memory"},
                  OpenOptions{.format = "raw", .backing_format = {}, .image = {}}, files, caches);
    REQUIRE(opened);
    return std::make_shared<Export>(name, description, std::move(opened->disk));
  }
  Json ask(std::string_view line) {
    const std::string answer = commands.answer(line);
    CHECK(answer.find('\n') == std::string::npos);
    return Json::parse(answer);
  }
  Json returned(std::string_view line) {
    const Json answer = ask(line);
    REQUIRE_MESSAGE(answer.contains("return"), answer.dump());
    return answer["return"];
  }
  std::string error(std::string_view line) {
    const Json answer = ask(line);
    REQUIRE_MESSAGE(answer.contains("error"), answer.dump());
    return answer["error"]["message"];
  }
  bool fails_with(std::string_view line, std::string_view part) {
    const std::string message = error(line);
    INFO(message);
    return message.find(part) != std::string::npos;
  }

  Result<std::shared_ptr<Export>> open(const AddedExport& added) override {
    last_added = added;
    if (added.image == "missing") return fail(ErrorKind::kNotFound, "nothing is there");
    return make(added.name, added.description);
  }
  Result<std::vector<std::string>> reload() override {
    return std::vector<std::string>{"one", "two"};
  }
  void drain() override { drains = true; }
  bool draining() const override { return drains; }

  Confinement files;
  Caches caches;
  Log log{"test", false};
  ExportCatalog catalog{{}, files, caches, log};
  ClientRegistry clients;
  ServerMetrics metrics;
  AddedExport last_added;
  bool drains = false;
  ControlCommands commands{{.host = *this,
                            .catalog = catalog,
                            .clients = clients,
                            .metrics = metrics,
                            .caches = caches,
                            .log = log}};
};

TEST_CASE("control: what is no command is told") {
  Fixture f;
  for (const char* line :
       {"", "x", "[]", "{}", "{\"command\": 1}", "\xff", "{\"command\": \"no\"}"}) {
    CAPTURE(line);
    CHECK(f.fails_with(line, "no command"));
  }
  CHECK(f.fails_with(R"({"command": "status", "id": 1})", "\"id\""));
  CHECK(f.fails_with(R"({"command": "status", "arguments": 1})", "an object"));
  CHECK(f.fails_with(R"({"command": "status", "arguments": {"a": 1}})", "no argument \"a\""));
  CHECK(f.fails_with(R"({"command": "add", "arguments": {"name": "a"}})", "needs the argument"));
  CHECK(f.fails_with(R"({"command": "add", "arguments": {"name": 1}})", "a string"));
  CHECK(f.fails_with(R"({"command": "remove", "arguments": {"hide": "on"}})", "true or false"));
}

TEST_CASE("control: exports are added, told and removed") {
  Fixture f;
  CHECK(f.returned(R"({"command": "add", "arguments": {"name": "a", "image": "/i", "format": "raw",
                       "snapshot": "s", "description": "text"}})")["size"] == 1024);
  CHECK(f.last_added.image == "/i");
  CHECK(f.last_added.format == "raw");
  CHECK(f.last_added.snapshot == "s");
  const Json exports = f.returned(R"({"command": "exports"})");
  REQUIRE(exports.size() == 1);
  CHECK(exports[0]["name"] == "a");
  CHECK(exports[0]["description"] == "text");
  CHECK(exports[0]["images"][0]["format"] == "raw");
  CHECK(exports[0]["hidden"] == false);
  CHECK(
      f.fails_with(R"({"command": "add", "arguments": {"name": "a", "image": "/i"}})", "already"));
  CHECK(f.fails_with(R"({"command": "add", "arguments": {"name": "b", "image": "missing"}})",
                     "nothing is there"));
  CHECK(f.returned(R"({"command": "remove", "arguments": {"name": "a"}})")["clients"] == 0);
  CHECK(f.returned(R"({"command": "exports"})").empty());
  CHECK(f.fails_with(R"({"command": "remove", "arguments": {"name": "a"}})", "no export \"a\""));
}

TEST_CASE("control: names that are too long, or no UTF-8, do no harm") {
  Fixture f;
  const std::string name(5000, 'n');
  CHECK(f.fails_with(R"({"command": "add", "arguments": {"image": "/i", "name": ")" + name + "\"}}",
                     "5000 bytes"));
  REQUIRE(f.catalog.add(f.make("\xff", "\xfe")));
  CHECK(f.returned(R"({"command": "exports"})")[0]["name"] == "\xef\xbf\xbd");
}

TEST_CASE("control: an export with clients is removed only when it is hidden") {
  Fixture f;
  REQUIRE(f.catalog.add(f.make("a", "")));
  auto client = *f.catalog.open("a");
  client->client_came();
  CHECK(f.fails_with(R"({"command": "remove", "arguments": {"name": "a"}})", "1 clients"));
  CHECK(f.catalog.open("a"));
  const Json removed =
      f.returned(R"({"command": "remove", "arguments": {"name": "a", "hide": true}})");
  CHECK(removed["clients"] == 1);
  CHECK(!f.catalog.open("a"));
  CHECK(f.returned(R"({"command": "exports"})")[0]["hidden"] == true);
  CHECK(f.catalog.with_clients().size() == 1);
  client.reset();
  CHECK(f.returned(R"({"command": "exports"})").empty());
}

TEST_CASE("control: clients are told with what they have read") {
  Fixture f;
  auto one = f.clients.enter({.address = "[::1]:80"}, "a", true);
  auto two = f.clients.enter({.address = "", .pid = 7, .uid = 8}, "b", false);
  one->reads = 2;
  one->read_bytes = 1024;
  const Json told = f.returned(R"({"command": "clients"})");
  REQUIRE(told.size() == 2);
  CHECK(told[0]["address"] == "[::1]:80");
  CHECK(told[0]["tls"] == true);
  CHECK(told[0]["reads"] == 2);
  CHECK(told[0]["read_bytes"] == 1024);
  CHECK(told[1]["pid"] == 7);
  CHECK(told[1]["uid"] == 8);
  CHECK(told[0]["id"] != told[1]["id"]);
  f.clients.leave(*one);
  CHECK(f.returned(R"({"command": "clients"})").size() == 1);
}

TEST_CASE("control: a peer on a Unix socket is told by its process") {
  std::array<int, 2> ends{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
  const UniqueFd one(ends[0]);
  const UniqueFd two(ends[1]);
  const PeerName peer = peer_of(one.get());
  CHECK(peer.address.empty());
  CHECK(peer.pid == ::getpid());
  CHECK(peer.uid == ::getuid());
}

TEST_CASE("control: status, drain, reload, log level") {
  Fixture f;
  f.metrics.clients = 3;
  CHECK(f.returned(R"({"command": "status"})")["status"] == "serving");
  CHECK(f.returned(R"({"command": "status"})")["clients"] == 3);
  CHECK(f.returned(R"({"command": "drain"})")["status"] == "draining");
  CHECK(f.drains);
  CHECK(f.returned(R"({"command": "reload"})")["changes"] == Json({"one", "two"}));
  CHECK(f.returned(R"({"command": "log-level", "arguments": {"level": "verbose"}})").empty());
  CHECK(f.log.verbose());
  CHECK(f.returned(R"({"command": "log-level", "arguments": {"level": "normal"}})").empty());
  CHECK(!f.log.verbose());
  CHECK(f.fails_with(R"({"command": "log-level", "arguments": {"level": "x"}})", "normal or"));
}

TEST_CASE("control: statistics have the counts of every export") {
  Fixture f;
  const auto exported = f.make("a", "");
  REQUIRE(f.catalog.add(exported));
  RequestTally tally;
  Request request;
  request.command = nbd::Command::kRead;
  request.length = 512;
  tally.answered_late(request, true, std::chrono::milliseconds(3));
  exported->metrics().requests.publish(tally);
  const Json told = f.returned(R"({"command": "statistics"})");
  const Json& counted = told["exports"][0];
  CHECK(counted["reads"] == 1);
  CHECK(counted["read_bytes"] == 512);
  CHECK(counted["seconds"] == doctest::Approx(0.003));
  CHECK(counted["latencies"].size() == kLatencyBuckets);
  CHECK(counted["latencies"].back()["requests"] == 1);
  CHECK(counted["latencies"].front()["requests"] == 0);
  CHECK(told["tables"]["hits"] == 0);
}

}  // namespace
}  // namespace underlay
