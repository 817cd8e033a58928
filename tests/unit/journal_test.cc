// What the journal gets, and what becomes of it when it does not take it.
#include "io/journal.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>

#include "io/log.h"
#include "server/entry_fields.h"
#include "tests/support/stderr_of.h"
#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

// The journal's end.
class Listener {
 public:
  explicit Listener(const std::string& path) : socket_(::socket(AF_UNIX, SOCK_DGRAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    REQUIRE(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) ==
            0);
  }

  // The next entry; "" when there is none.
  std::string next() {
    std::array<char, 16384> bytes{};
    const ssize_t got = ::recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    return {bytes.data(), got > 0 ? static_cast<size_t>(got) : 0};
  }

 private:
  UniqueFd socket_;
};

TEST_CASE("journal: an entry says who speaks, how bad it is, and has the fields") {
  CHECK(journal_entry("prog", LogPriority::kWarning, "odd", {{"UNDERLAY_EXPORT", "disk"}}) ==
        "MESSAGE=odd\nPRIORITY=4\nSYSLOG_IDENTIFIER=prog\nUNDERLAY_EXPORT=disk\n");
  CHECK(journal_entry("prog", LogPriority::kError, "", {}) ==
        "MESSAGE=\nPRIORITY=3\nSYSLOG_IDENTIFIER=prog\n");
}

TEST_CASE("journal: a name with a newline cannot make fields") {
  const std::string length("\x0b\0\0\0\0\0\0\0", 8);
  CHECK(journal_entry("prog", LogPriority::kNotice, "x", {{"A", "a\nPRIORITY="}, {"B", "b"}}) ==
        "MESSAGE=x\nPRIORITY=5\nSYSLOG_IDENTIFIER=prog\nA\n" + length + "a\nPRIORITY=\nB=b\n");
}

TEST_CASE("journal: the log's lines become entries, and none is on standard error") {
  const TempFolder folder;
  Listener listener(folder.path("socket"));
  CHECK(stderr_of([&] {
          Log log("prog", true, Journal::connect(folder.path("socket")).value());
          log.error("broken\x1b", {{"UNDERLAY_OFFSET", "512"}});
          log.warn("odd");
          log.note("done");
          log.detail("seen");
        }).empty());
  const std::string who = "SYSLOG_IDENTIFIER=prog\n";
  CHECK(listener.next() == "MESSAGE=broken\\x1b\nPRIORITY=3\n" + who + "UNDERLAY_OFFSET=512\n");
  CHECK(listener.next() == "MESSAGE=odd\nPRIORITY=4\n" + who);
  CHECK(listener.next() == "MESSAGE=done\nPRIORITY=5\n" + who);
  CHECK(listener.next() == "MESSAGE=seen\nPRIORITY=6\n" + who);
  CHECK(listener.next().empty());
}

TEST_CASE("journal: what it does not take at once is a line on standard error") {
  const TempFolder folder;
  std::optional<Listener> listener(folder.path("socket"));
  const Journal other = Journal::connect(folder.path("socket")).value();
  CHECK(stderr_of([&] {
          Log log("prog", false, Journal::connect(folder.path("socket")).value());
          while (other.send("MESSAGE=flood\n")) {
          }
          log.warn("busy", {{"UNDERLAY_OFFSET", "512"}});
          while (!listener->next().empty()) {
          }
          log.warn("heard");
          CHECK(listener->next().starts_with("MESSAGE=heard\n"));
          listener.reset();
          log.error("gone");
        }) == Lines{"prog: warning: busy", "prog: gone"});
}

TEST_CASE("journal: one that is not there is an error that names its socket") {
  const TempFolder folder;
  const auto journal = Journal::connect(folder.path("nobody"));
  REQUIRE_FALSE(journal);
  CHECK(journal.error().to_string() ==
        folder.path("nobody") + ": cannot reach the journal: No such file or directory");
  CHECK_FALSE(Journal::connect("/" + std::string(200, 'x')));
}

TEST_CASE(
    "journal: standard error is the journal's when device and inode are those of the manager") {
  CHECK(stderr_of([] {
          struct stat file {};
          REQUIRE(::fstat(STDERR_FILENO, &file) == 0);
          const std::string own = fmt::format("{}:{}", file.st_dev, file.st_ino);
          ::setenv("JOURNAL_STREAM", own.c_str(), 1);
          CHECK(stderr_is_journal());
          for (const std::string& other : {own + "0", "1" + own, std::string(), std::string("x")}) {
            ::setenv("JOURNAL_STREAM", other.c_str(), 1);
            CHECK_FALSE(stderr_is_journal());
          }
          ::unsetenv("JOURNAL_STREAM");
          CHECK_FALSE(stderr_is_journal());
        }).empty());
}

// "NAME=VALUE ..."
std::string text_of(const LogFields& fields) {
  std::string text;
  for (const LogField& field : fields) text += fmt::format("{}={} ", field.name, field.value);
  return text;
}

TEST_CASE("entry fields: each has what is known") {
  const Request request{
      .command = nbd::Command::kRead, .offset = 4096, .length = 512, .received = {}};
  CHECK(text_of(EntryFields().exported("disk").request(request).duration(
            std::chrono::milliseconds(3))) ==
        "UNDERLAY_EXPORT=disk UNDERLAY_COMMAND=0 UNDERLAY_OFFSET=4096 UNDERLAY_LENGTH=512 "
        "UNDERLAY_DURATION_US=3000 ");
  CHECK(text_of(EntryFields().exported("")) == "UNDERLAY_EXPORT= ");
  Error error{.sys_errno = 5, .file = "/image", .offset = 65536, .message = "cannot read"};
  CHECK(text_of(EntryFields().error(error)) ==
        "UNDERLAY_FILE=/image UNDERLAY_FILE_OFFSET=65536 ERRNO=5 ");
  CHECK(text_of(EntryFields().error(Error{})).empty());
  const ConnectedClient local{
      .peer = {.address = "", .pid = 7, .uid = 1000}, .export_name = "", .id = 3};
  CHECK(text_of(EntryFields().client(local)) ==
        "UNDERLAY_CLIENT=3 UNDERLAY_PEER_PID=7 UNDERLAY_PEER_UID=1000 ");
  CHECK(text_of(EntryFields().peer({.address = "[::1]:5000"})) ==
        "UNDERLAY_PEER_ADDRESS=[::1]:5000 ");
  CHECK(text_of(EntryFields().peer({})).empty());  // in another namespace
}

}  // namespace
}  // namespace underlay
