// QEMU's locks, as a reader takes and finds them. Two descriptions of one file stand for two
// processes.
#include "io/image_lock.h"

#include <doctest/doctest.h>
#include <fcntl.h>

#include <fstream>

#include "io/file_source.h"
#include "io/unique_fd.h"
#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

struct LockedFile {
  TempFolder folder;
  std::string path = folder.path("image");
  LockedFile() { std::ofstream(path) << "some bytes"; }
  UniqueFd open(int flags = O_RDWR) const {
    return UniqueFd(::open(path.c_str(), flags | O_CLOEXEC));
  }
};

bool lock(const UniqueFd& fd, off_t at, short type) {
  struct flock wanted {};
  wanted.l_type = type;
  wanted.l_whence = SEEK_SET;
  wanted.l_start = at;
  wanted.l_len = 1;
  return ::fcntl(fd.get(), F_OFD_SETLK, &wanted) == 0;
}

}  // namespace

TEST_CASE("image lock: readers share a file") {
  const LockedFile file;
  const UniqueFd first = file.open(O_RDONLY);
  const UniqueFd second = file.open(O_RDONLY);
  CHECK(lock_for_reading(first.get(), file.path));
  CHECK(lock_for_reading(second.get(), file.path));
}

TEST_CASE("image lock: a file that is being written, resized, or kept from readers is refused") {
  for (const off_t held : {101, 103, 200}) {
    CAPTURE(held);
    const LockedFile file;
    const UniqueFd writer = file.open();
    REQUIRE(lock(writer, held, F_RDLCK));
    const auto refused = open_file_source(file.path);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind == ErrorKind::kDenied);
    CHECK(refused.error().file == file.path);
    CHECK(refused.error().message.find("--force-share") != std::string::npos);
    CHECK(open_file_source(file.path, FileSharing::kAnyWriter));
  }
}

TEST_CASE("image lock: permissions that do not touch a reader are no hindrance") {
  // 100 others read, 102 write what is there already, 104 QEMU's graph, 202 no such writers.
  for (const off_t held : {100, 102, 104, 202}) {
    CAPTURE(held);
    const LockedFile file;
    const UniqueFd other = file.open();
    REQUIRE(lock(other, held, F_RDLCK));
    CHECK(open_file_source(file.path));
  }
}

TEST_CASE("image lock: while a source lives, QEMU's test for writing and resizing finds it") {
  const LockedFile file;
  const UniqueFd other = file.open();
  auto source = open_file_source(file.path);
  REQUIRE(source);
  CHECK_FALSE(lock(other, 201, F_WRLCK));
  CHECK_FALSE(lock(other, 203, F_WRLCK));
  CHECK(lock(other, 200, F_WRLCK));
  source->reset();
  CHECK(lock(other, 201, F_WRLCK));
}

TEST_CASE("image lock: a file that is locked exclusively by another program is refused") {
  const LockedFile file;
  const UniqueFd other = file.open();
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  REQUIRE(::fcntl(other.get(), F_OFD_SETLK, &whole) == 0);
  const auto refused = open_file_source(file.path);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().kind == ErrorKind::kDenied);
}

TEST_CASE("image lock: whoever has an image open, to read it or to write to it, is found") {
  const LockedFile file;
  const UniqueFd asking = file.open(O_RDONLY);
  CHECK(check_unused(asking.get(), file.path));
  {
    const UniqueFd reader = file.open(O_RDONLY);
    REQUIRE(lock_for_reading(reader.get(), file.path));
    const auto used = check_unused(asking.get(), file.path);
    REQUIRE(!used);
    CHECK(used.error().kind == ErrorKind::kDenied);
  }
  CHECK(check_unused(asking.get(), file.path));
  const UniqueFd writer = file.open();
  REQUIRE(lock(writer, 101, F_RDLCK));
  CHECK(!check_unused(asking.get(), file.path));
  REQUIRE(lock(writer, 101, F_UNLCK));
  // No byte of QEMU's.
  REQUIRE(lock(writer, 0, F_WRLCK));
  CHECK(check_unused(asking.get(), file.path));
}

}  // namespace underlay
