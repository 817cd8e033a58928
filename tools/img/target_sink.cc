#include "tools/img/target_sink.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>

#include "io/image_lock.h"
#include "tools/common/interruption.h"
#include "tools/img/image_files.h"

namespace underlay::img {
namespace {

constexpr const char* kStandardOutputName = "standard output";

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
  explicit OutputSink(NewFile::Durability durability) : durability_(durability) {}

  bool is_sequential() const override { return true; }

  Result<void> write(uint64_t offset, ByteSpan bytes) override {
    assert(offset >= written_);
    TRY(write_zeros(offset - written_));
    return put(bytes);
  }
  Result<void> finish(uint64_t size) override {
    TRY(write_zeros(size - written_));
    if (durability_ == NewFile::Durability::kInMemory || ::fsync(STDOUT_FILENO) == 0) return {};
    // Pipes and sockets have no disk.
    if (errno == EINVAL || errno == EROFS) return {};
    return in_file(fail_errno(errno, "cannot be brought to the disk"), kStandardOutputName);
  }

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
    return in_file(fail_errno(error, "cannot be written"), kStandardOutputName);
  }

  NewFile::Durability durability_;
  uint64_t written_ = 0;
};

Result<std::unique_ptr<Sink>> standard_output(const Disk& source, NewFile::Durability durability) {
  struct stat status;
  if (::isatty(STDOUT_FILENO) != 0) {
    return fail(ErrorKind::kUsage, "standard output is a terminal, which takes no image");
  }
  if (::fstat(STDOUT_FILENO, &status) != 0) {
    return in_file(fail_errno(errno, "cannot stat"), kStandardOutputName);
  }
  if (is_file_of(source, status)) {
    return fail(ErrorKind::kUsage, "standard output is a file of the image that is read");
  }
  TRY(check_unused(STDOUT_FILENO, kStandardOutputName));
  return std::make_unique<OutputSink>(durability);
}

}  // namespace

Result<std::unique_ptr<Sink>> open_target(const std::string& path, const Disk& source,
                                          NewFile::Durability durability) {
  if (path == kStandardOutput) return standard_output(source, durability);
  const std::string place = without_links(path);
  TRY(check_may_be_replaced(place, source));
  NewFile file = TRY(NewFile::create(place, NewFile::Existing::kReplace));
  return std::make_unique<FileSink>(std::move(file), durability);
}

}  // namespace underlay::img
