// Files that are there in full, or not at all; which files they may replace.
#include "tools/img/new_file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "io/file_source.h"
#include "tests/support/opened_disk.h"
#include "tests/support/temp_folder.h"
#include "tools/common/interruption.h"
#include "tools/img/image_files.h"

namespace underlay::img {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

size_t files_in(const TempFolder& folder) {
  using Entries = std::filesystem::directory_iterator;
  return static_cast<size_t>(std::distance(Entries(folder.path()), Entries()));
}

// The descriptor of the only file in the folder that this process has open; -1 for none.
int descriptor_in(const TempFolder& folder) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    const std::string leads_to = std::filesystem::read_symlink(entry, error);
    if (error || !leads_to.starts_with(folder.path("") + "/")) continue;
    return std::stoi(entry.path().filename());
  }
  return -1;
}

// A device, as a source states it.
class DeviceSource final : public Source {
 public:
  explicit DeviceSource(dev_t device) : device_(device) {}
  const std::string& name() const override { return bytes_.name(); }
  uint64_t size() const override { return bytes_.size(); }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override {
    return bytes_.read_at(offset, out);
  }
  std::optional<FileIdentity> identity() const override { return FileIdentity{.device = device_}; }

 private:
  MemorySource bytes_{test::pattern(512, 1), "/dev/loop3"};
  dev_t device_;
};

// Of a node in a file system, which has numbers of its own.
struct stat status_of_node(mode_t type, dev_t device) {
  struct stat status {};
  status.st_mode = type | 0600;
  status.st_rdev = device;
  status.st_dev = makedev(0, 6);
  status.st_ino = 345;
  return status;
}

}  // namespace

TEST_CASE("a new file is there in full, or not at all") {
  const TempFolder folder;
  const std::string path = folder.path("new");
  {
    NewFile file = NewFile::create(path, NewFile::Existing::kKeep).value();
    REQUIRE(file.write_at(0, as_bytes("text")));
    CHECK(!std::filesystem::exists(path));
  }
  CHECK(files_in(folder) == 0);
  NewFile file = NewFile::create(path, NewFile::Existing::kKeep).value();
  REQUIRE(file.write_at(3, as_bytes("!")));
  REQUIRE(file.write_copies(4, as_bytes("ab"), 200));
  REQUIRE(file.commit());
  CHECK(files_in(folder) == 1);
  const std::string text = text_of(path);
  REQUIRE(text.size() == 404);
  CHECK(text.substr(3, 5) == "!abab");
  CHECK(text.ends_with("abab"));
}

TEST_CASE("a new file replaces no other, unless told, and then a regular file alone") {
  const TempFolder folder;
  const std::string path = folder.write("file", "old");
  CHECK(NewFile::create(path, NewFile::Existing::kKeep).error().kind == ErrorKind::kUsage);
  // It may come into being while the new one is written.
  NewFile late = NewFile::create(folder.path("late"), NewFile::Existing::kKeep).value();
  folder.write("late", "first");
  CHECK(late.commit().error().kind == ErrorKind::kUsage);
  CHECK(text_of(folder.path("late")) == "first");
  NewFile file = NewFile::create(path, NewFile::Existing::kReplace).value();
  REQUIRE(file.write_at(0, as_bytes("new")));
  CHECK(text_of(path) == "old");
  REQUIRE(file.commit());
  CHECK(text_of(path) == "new");
  std::filesystem::create_symlink(path, folder.path("link"));
  std::filesystem::create_directory(folder.path("folder"));
  for (const char* name : {"link", "folder"}) {
    CHECK(!NewFile::create(folder.path(name), NewFile::Existing::kReplace));
  }
  CHECK(!NewFile::create(folder.path("no/such/folder"), NewFile::Existing::kKeep));
}

TEST_CASE("a new file may have a name that is as long as names can be") {
  const TempFolder folder;
  const std::string path = folder.path(std::string(255, 'n'));
  NewFile file = NewFile::create(path, NewFile::Existing::kKeep).value();
  REQUIRE(file.commit());
  CHECK(std::filesystem::exists(path));
}

TEST_CASE("a new file whose bytes are found to be lost when it is closed replaces nothing") {
  const TempFolder folder;
  const std::string path = folder.write("file", "old");
  {
    NewFile file = NewFile::create(path, NewFile::Existing::kReplace).value();
    REQUIRE(file.write_at(0, as_bytes("new")));
    const int descriptor = descriptor_in(folder);
    REQUIRE(descriptor >= 0);
    // So that closing it fails.
    ::close(descriptor);
    const auto committed = file.commit(NewFile::Durability::kInMemory);
    REQUIRE(!committed);
    CHECK(committed.error().sys_errno == EBADF);
    CHECK(committed.error().file == path);
  }
  CHECK(text_of(path) == "old");
  CHECK(files_in(folder) == 1);
}

TEST_CASE("a new file whose program was interrupted while it was brought to the disk is none") {
  const TempFolder folder;
  const std::string path = folder.write("file", "old");
  // An interruption is never taken back: it is that of another process.
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    bool right = false;
    {
      NewFile file = NewFile::create(path, NewFile::Existing::kReplace).value();
      note_interruptions();
      ::raise(SIGINT);
      const auto committed = file.commit();
      right = !committed && committed.error().sys_errno == EINTR;
    }
    ::_exit(right ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(text_of(path) == "old");
  CHECK(files_in(folder) == 1);
}

TEST_CASE("a block device is the same one, whatever node it is named by") {
  const dev_t device = makedev(7, 3);
  const struct stat node = status_of_node(S_IFBLK, device);
  CHECK(identity_of(node) == FileIdentity{.device = device, .inode = 0});
  const struct stat file = status_of_node(S_IFREG, device);
  CHECK(identity_of(file) == FileIdentity{.device = file.st_dev, .inode = file.st_ino});

  OpenOptions options;
  options.format = "raw";
  const test::MemoryFiles none;
  const auto opened = test::open_as(options, std::make_shared<DeviceSource>(device), none);
  REQUIRE(opened);
  const Disk& disk = *opened.disk->disk;
  CHECK(is_file_of(disk, node));
  CHECK(!is_file_of(disk, status_of_node(S_IFBLK, makedev(7, 4))));
  CHECK(!is_file_of(disk, file));
}

}  // namespace underlay::img
