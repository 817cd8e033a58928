#include "io/source.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <numeric>

#include "io/faulty_source.h"
#include "io/file_source.h"
#include "io/memory_source.h"
#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

std::string text_of(const Source& source, uint64_t offset, size_t length) {
  std::string text(length, '?');
  const auto read = source.read_at(offset, std::as_writable_bytes(std::span(text)));
  return read ? text : "error";
}

std::vector<std::byte> bytes_of(std::string_view text) {
  const ByteSpan bytes = as_bytes(text);
  return {bytes.begin(), bytes.end()};
}

ErrorKind kind_of(const Result<std::shared_ptr<const Source>>& opened) {
  REQUIRE(!opened);
  return opened.error().kind;
}

TEST_CASE("a file reads at any offset, and never past its end") {
  const TempFolder folder;
  const auto source = *open_file_source(folder.write("f", "0123456789"));
  CHECK(source->size() == 10);
  CHECK(source->name() == folder.path("f"));
  CHECK(text_of(*source, 0, 10) == "0123456789");
  CHECK(text_of(*source, 7, 3) == "789");
  CHECK(text_of(*source, 10, 0).empty());
  std::array<std::byte, 4> out{};
  for (const uint64_t offset : {uint64_t{7}, uint64_t{10}, ~uint64_t{0}, ~uint64_t{0} - 3}) {
    const auto read = source->read_at(offset, out);
    REQUIRE(!read);
    CHECK(read.error().kind == ErrorKind::kTruncated);
    CHECK(read.error().file == folder.path("f"));
    CHECK(read.error().offset == offset);
  }
}

TEST_CASE("an empty file is a source of no bytes") {
  const TempFolder folder;
  const auto source = *open_file_source(folder.write("empty", ""));
  CHECK(source->size() == 0);
  CHECK(text_of(*source, 0, 0).empty());
  CHECK(text_of(*source, 0, 1) == "error");
}

TEST_CASE("a file that shrinks while it is open gives errors, not zeros") {
  const TempFolder folder;
  const std::string path = folder.write("f", std::string(100000, 'x'));
  const auto source = *open_file_source(path);
  REQUIRE(::truncate(path.c_str(), 50000) == 0);
  CHECK(text_of(*source, 49999, 1) == "x");
  std::array<std::byte, 100> out{};
  for (const uint64_t offset : {49950u, 50000u, 90000u}) {
    const auto read = source->read_at(offset, out);
    REQUIRE(!read);
    CHECK(read.error().kind == ErrorKind::kTruncated);
  }
  CHECK(source->read_cached(60000, out) == 0);
  const SourceRun run = source->run_at(60000, 1000);
  CHECK(!run.hole);
}

TEST_CASE("read_cached gives a true prefix or nothing, never past the end") {
  const TempFolder folder;
  const auto source = *open_file_source(folder.write("f", "0123456789"));
  std::string text(10, '?');
  const size_t got = source->read_cached(0, std::as_writable_bytes(std::span(text)));
  CHECK(got <= 10);
  CHECK(text.substr(0, got) == std::string("0123456789").substr(0, got));
  CHECK(source->read_cached(5, std::as_writable_bytes(std::span(text))) == 0);
  CHECK(source->read_cached(~uint64_t{0}, std::as_writable_bytes(std::span(text))) == 0);
}

TEST_CASE("what was never read, or is no longer in the file, is not in memory") {
  const TempFolder folder;
  constexpr uint64_t kWritten = 1 << 20;
  const std::string path = folder.write("f", std::string(kWritten, 'x'));
  REQUIRE(::truncate(path.c_str(), 2 * kWritten) == 0);
  const auto source = *open_file_source(path);
  // Kernels before 6.5 cannot tell, and then it is false of everything.
  const bool known = source->in_memory(0, kWritten);
  CHECK(source->in_memory(5000, 1) == known);
  CHECK_FALSE(source->in_memory(0, 2 * kWritten));
  CHECK_FALSE(source->in_memory(kWritten, 4096));

  REQUIRE(::truncate(path.c_str(), 900'000) == 0);
  CHECK(source->in_memory(899'000, 1000) == known);
  CHECK_FALSE(source->in_memory(899'000, 1001));
}

// The kernel counts pages that it failed to read among those in memory. Sending one of them ends
// the connection, where reading it fails one request.
TEST_CASE("a file that could not be read somewhere is not taken to be in memory any more") {
  const TempFolder folder;
  const std::string path = folder.write("f", std::string(1 << 20, 'x'));
  const auto source = *open_file_source(path);
  const bool known = source->in_memory(0, 4096);
  std::array<std::byte, 16> out;
  // Our own mistakes say nothing of the file.
  CHECK(!source->read_at(1 << 20, out));
  CHECK(source->in_memory(0, 4096) == known);
  REQUIRE(::truncate(path.c_str(), 900'000) == 0);
  CHECK(!source->read_at(900'000, out));
  CHECK_FALSE(source->in_memory(0, 4096));
  CHECK(source->read_at(0, out));
}

TEST_CASE("a missing file is not found, and the error names it") {
  const TempFolder folder;
  const auto opened = open_file_source(folder.path("nothing"));
  CHECK(kind_of(opened) == ErrorKind::kNotFound);
  CHECK(opened.error().to_string() ==
        folder.path("nothing") + ": cannot open: No such file or directory");
}

TEST_CASE("a FIFO is refused without waiting for its writer") {
  const TempFolder folder;
  REQUIRE(::mkfifo(folder.path("fifo").c_str(), 0600) == 0);
  CHECK(kind_of(open_file_source(folder.path("fifo"))) == ErrorKind::kUnsupported);
}

TEST_CASE("folders, character devices and sockets are refused") {
  const TempFolder folder;
  CHECK(kind_of(open_file_source(folder.path())) == ErrorKind::kUnsupported);
  CHECK(kind_of(open_file_source("/dev/null")) == ErrorKind::kUnsupported);
  const UniqueFd server(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  folder.path("socket").copy(address.sun_path, sizeof(address.sun_path) - 1);
  REQUIRE(::bind(server.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  CHECK(!open_file_source(folder.path("socket")));
}

TEST_CASE("holes are told apart from data, and nothing is hole that holds data") {
  const TempFolder folder;
  const std::string path = folder.write("f", "");
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  REQUIRE(::ftruncate(fd.get(), 3 << 20) == 0);
  REQUIRE(::pwrite(fd.get(), "data", 4, 1 << 20) == 4);
  const auto source = *open_file_source(path);
  uint64_t at = 0;
  while (at < source->size()) {
    const SourceRun run = source->run_at(at, source->size() - at);
    REQUIRE(run.length > 0);
    REQUIRE(run.length <= source->size() - at);
    if (run.hole) CHECK((at + run.length <= (1 << 20) || at >= (1 << 20) + 4));
    at += run.length;
  }
  CHECK(at == source->size());
  CHECK(!source->run_at(1 << 20, 4).hole);
  CHECK(source->run_at(0, 4096).length == 4096);  // cut to what was asked for
  CHECK(source->run_at((3 << 20) - 1, 1).length == 1);
}

TEST_CASE("check_unchanged notices another size and another modification time") {
  const TempFolder folder;
  const std::string path = folder.write("f", "content");
  const auto source = *open_file_source(path);
  CHECK(source->check_unchanged());
  const timespec times[2] = {{.tv_sec = 1000, .tv_nsec = 0}, {.tv_sec = 1000, .tv_nsec = 1}};
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
  CHECK(!source->check_unchanged());
  const auto again = *open_file_source(path);
  CHECK(again->check_unchanged());
  folder.write("f", "longer content");
  const auto changed = again->check_unchanged();
  REQUIRE(!changed);
  CHECK(changed.error().message == "size changed from 7 to 14 bytes while it is served");
}

TEST_CASE("one file has one identity, however it is named") {
  const TempFolder folder;
  const std::string path = folder.write("f", "x");
  std::filesystem::create_symlink(path, folder.path("link"));
  std::filesystem::create_hard_link(path, folder.path("hard"));
  const auto identity = (*open_file_source(path))->identity();
  REQUIRE(identity);
  CHECK((*open_file_source(folder.path("link")))->identity() == identity);
  CHECK((*open_file_source(folder.path("hard")))->identity() == identity);
  CHECK((*open_file_source(folder.write("g", "x")))->identity() != identity);
}

TEST_CASE("memory reads within its bounds only") {
  const MemorySource source(bytes_of("0123456789"));
  CHECK(text_of(source, 2, 8) == "23456789");
  CHECK(text_of(source, 2, 9) == "error");
  CHECK(text_of(source, ~uint64_t{0}, 2) == "error");
  CHECK(text_of(source, 11, 0) == "error");
  CHECK(text_of(source, 10, 0).empty());
}

TEST_CASE("a faulty source fails the n-th read once") {
  FaultySource source(std::make_shared<MemorySource>(bytes_of("0123456789")));
  source.fail_read(1);
  CHECK(text_of(source, 0, 2) == "01");
  CHECK(text_of(source, 0, 2) == "error");
  CHECK(text_of(source, 0, 2) == "01");
  CHECK(source.reads() == 3);
}

TEST_CASE("a faulty source fails every read that touches its bad range") {
  FaultySource source(std::make_shared<MemorySource>(bytes_of("0123456789")));
  source.fail_range(4, 2);
  CHECK(text_of(source, 0, 4) == "0123");
  CHECK(text_of(source, 0, 5) == "error");
  CHECK(text_of(source, 5, 1) == "error");
  CHECK(text_of(source, 6, 4) == "6789");
  source.fail_range(4, 0);
  CHECK(text_of(source, 0, 10) == "0123456789");
}

}  // namespace
}  // namespace underlay
