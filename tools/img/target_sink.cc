#include "tools/img/target_sink.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <filesystem>

#include "io/image_use.h"
#include "io/unique_fd.h"
#include "tools/common/interruption.h"
#include "tools/img/image_files.h"

namespace underlay::img {
namespace {

class FileSink final : public Sink {
 public:
  FileSink(NewFile file, NewFile::Durability durability)
      : file_(std::move(file)), durability_(durability) {}

  bool is_sequential() const override { return false; }
  Result<void> write(uint64_t offset, ByteSpan bytes) override {
    return file_.write_at(offset, bytes);
  }
  Result<void> finish(uint64_t size) override {
    TRY(file_.resize(size));
    return file_.commit(durability_);
  }

 private:
  NewFile file_;
  NewFile::Durability durability_;
};

class OutputSink final : public Sink {
 public:
  bool is_sequential() const override { return true; }

  Result<void> write(uint64_t offset, ByteSpan bytes) override {
    assert(offset >= written_);
    TRY(write_zeros(offset - written_));
    return put(bytes);
  }
  Result<void> finish(uint64_t size) override { return write_zeros(size - written_); }

 private:
  Result<void> write_zeros(uint64_t count) {
    static constexpr std::array<std::byte, 64 << 10> kZeros{};
    while (count > 0) {
      const size_t step = std::min<uint64_t>(count, kZeros.size());
      TRY(put(ByteSpan(kZeros).first(step)));
      count -= step;
    }
    return {};
  }

  Result<void> put(ByteSpan bytes) {
    while (!bytes.empty()) {
      if (is_interrupted()) return fail_errno(EINTR, "interrupted");
      const ssize_t done = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
      if (done < 0) {
        TRY(recover(errno));
        continue;
      }
      written_ += static_cast<uint64_t>(done);
      bytes = bytes.subspan(static_cast<size_t>(done));
    }
    return {};
  }

  // Somebody may have made the pipe one that does not wait.
  static Result<void> recover(int error) {
    if (error == EINTR) return {};
    if (error == EAGAIN) {
      pollfd output{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
      (void)::poll(&output, 1, -1);
      return {};
    }
    return in_file(fail_errno(error, "cannot be written"), "standard output");
  }

  uint64_t written_ = 0;
};

Result<std::unique_ptr<Sink>> standard_output(const Disk& source) {
  struct stat status;
  if (::isatty(STDOUT_FILENO) != 0) {
    return fail(ErrorKind::kUsage, "standard output is a terminal, which takes no image");
  }
  if (::fstat(STDOUT_FILENO, &status) == 0 && is_file_of(source, status)) {
    return fail(ErrorKind::kUsage, "standard output is a file of the image that is read");
  }
  return std::make_unique<OutputSink>();
}

// Where a symbolic link leads to: the link itself is not what is to be replaced.
std::string without_links(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_symlink(path, error)) return path;
  const auto target = std::filesystem::canonical(path, error);
  return error ? path : target.string();
}

Result<void> check_may_be_replaced(const std::string& path, const Disk& source) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) return {};
  if (is_file_of(source, status)) {
    return in_file(fail(ErrorKind::kUsage,
                        "is a file of the image that is read, and is not "
                        "replaced: choose another name"),
                   path);
  }
  if (!S_ISREG(status.st_mode)) {
    return in_file(fail(ErrorKind::kUsage, "is no regular file, and is not replaced"), path);
  }
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) {
    return in_file(fail_errno(errno, "cannot find out whether it is in use, and is not replaced"),
                   path);
  }
  return check_unused(file.get(), path);
}

}  // namespace

Result<std::unique_ptr<Sink>> open_target(const std::string& path, const Disk& source,
                                          NewFile::Durability durability) {
  if (path == kStandardOutput) return standard_output(source);
  const std::string place = without_links(path);
  TRY(check_may_be_replaced(place, source));
  NewFile file = TRY(NewFile::create(place, NewFile::Existing::kReplace));
  return std::make_unique<FileSink>(std::move(file), durability);
}

}  // namespace underlay::img
