#include "tools/img/new_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "tools/common/interruption.h"

namespace underlay::img {
namespace {

Failure exists_already(const std::string& path) {
  return in_file(fail(ErrorKind::kUsage, "exists: choose another name, or say --overwrite"), path);
}

// What a new file has when its creator says nothing.
mode_t usual_mode() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return 0666 & ~mask;
}

// Short, whatever the file is called: its name may be as long as names can be.
std::string name_beside(const std::string& path) {
  return (std::filesystem::path(path).parent_path() / ".underlay-XXXXXX").string();
}

// Gives `fd` the permissions and the owner of the file that it is to replace, as far as the process
// may: what the group was allowed, no other group is.
Result<void> make_alike(int fd, const struct stat& replaced) {
  mode_t mode = replaced.st_mode & 0777;
  if (::fchown(fd, static_cast<uid_t>(-1), replaced.st_gid) != 0) mode &= ~mode_t{S_IRWXG};
  if (::fchmod(fd, mode) != 0) return fail_errno(errno, "cannot set the mode of the file");
  (void)!::fchown(fd, replaced.st_uid, static_cast<gid_t>(-1));
  return {};
}

// A folder in which a file has its name is on the disk when the name is.
Result<void> sync_folder(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const UniqueFd folder(
      ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid() || ::fsync(folder.get()) != 0) {
    return in_file(fail_errno(errno, "cannot bring the folder's entry to the disk"), path);
  }
  return {};
}

}  // namespace

bool NewFile::take_name() {
  const char* const from = written_path_.c_str();
  if (existing_ == Existing::kReplace) {
    if (::rename(from, path_.c_str()) != 0) return false;
  } else if (::renameat2(AT_FDCWD, from, AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) != 0) {
    // Not every file system knows the flag; link() never replaces.
    return errno == EINVAL && ::link(from, path_.c_str()) == 0;
  }
  written_path_.clear();
  return true;
}

Result<NewFile> NewFile::create(const std::string& path, Existing existing) {
  struct stat status;
  const bool exists = ::lstat(path.c_str(), &status) == 0;
  if (exists) {
    if (existing == Existing::kKeep) return exists_already(path);
    if (!S_ISREG(status.st_mode)) {
      return in_file(fail(ErrorKind::kUsage, "is no regular file, and is not replaced"), path);
    }
  }
  std::string written = name_beside(path);
  UniqueFd fd(::mkostemp(written.data(), O_CLOEXEC));
  if (!fd.valid()) {
    return in_file(fail_errno(errno, "cannot create the file beside it"), path);
  }
  NewFile file(path, std::move(written), std::move(fd), existing);
  if (exists) {
    if (auto alike = make_alike(file.fd_.get(), status); !alike) {
      return in_file(std::move(alike).error(), path);
    }
  } else if (::fchmod(file.fd_.get(), usual_mode()) != 0) {
    return file.failed(errno, "set the mode of");
  }
  return file;
}

NewFile::NewFile(std::string path, std::string written_path, UniqueFd fd, Existing existing)
    : path_(std::move(path)),
      written_path_(std::move(written_path)),
      fd_(std::move(fd)),
      existing_(existing) {}

NewFile::NewFile(NewFile&& other) noexcept
    : path_(std::move(other.path_)),
      written_path_(std::exchange(other.written_path_, {})),
      fd_(std::move(other.fd_)),
      existing_(other.existing_) {}

NewFile::~NewFile() {
  if (!written_path_.empty()) ::unlink(written_path_.c_str());
}

Failure NewFile::failed(int error, std::string_view what) const {
  return in_file(fail_errno(error, "cannot {} the file", what), path_);
}

Result<void> NewFile::write_at(uint64_t offset, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return failed(put < 0 ? errno : EIO, "write");
    bytes = bytes.subspan(static_cast<size_t>(put));
    offset += static_cast<uint64_t>(put);
  }
  return {};
}

Result<void> NewFile::write_copies(uint64_t offset, ByteSpan bytes, uint64_t count) {
  constexpr size_t kMostAtOnce = 64;
  std::array<iovec, kMostAtOnce> copies;
  copies.fill({.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()});
  const uint64_t end = offset + count * bytes.size();
  while (offset < end) {
    // What a short write left of a copy goes first.
    const uint64_t rest = (end - offset) % bytes.size();
    if (rest > 0) {
      TRY(write_at(offset, bytes.last(static_cast<size_t>(rest))));
      offset += rest;
      continue;
    }
    const uint64_t left = (end - offset) / bytes.size();
    const ssize_t put =
        ::pwritev(fd_.get(), copies.data(), static_cast<int>(std::min<uint64_t>(left, kMostAtOnce)),
                  static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return failed(put < 0 ? errno : EIO, "write");
    offset += static_cast<uint64_t>(put);
  }
  return {};
}

Result<void> NewFile::resize(uint64_t size) {
  if (::ftruncate(fd_.get(), static_cast<off_t>(size)) == 0) return {};
  return failed(errno, "set the size of");
}

Result<void> NewFile::commit(Durability durability) {
  const bool is_on_disk = durability == Durability::kOnDisk;
  if (is_on_disk && ::fsync(fd_.get()) != 0) return failed(errno, "bring to the disk");
  // Some file systems tell only now that there is no room (NFS).
  if (::close(fd_.release()) != 0) return failed(errno, "write");
  if (is_interrupted()) return fail_errno(EINTR, "interrupted");
  if (!take_name()) return errno == EEXIST ? exists_already(path_) : failed(errno, "name");
  if (!is_on_disk) return {};
  return sync_folder(path_);
}

}  // namespace underlay::img
