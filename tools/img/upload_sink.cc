#include "tools/img/upload_sink.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>

#include "io/environment.h"
#include "io/http/object_writer.h"
#include "io/http/remote_name.h"
#include "io/unique_fd.h"
#include "tools/common/interruption.h"
#include "tools/img/image_files.h"

namespace underlay::img {
namespace {

WriteSettings write_settings(uint64_t expected) {
  return {.limits = {}, .expected = expected, .interrupted = [] { return is_interrupted(); }};
}

// Sends what is written, and zeros for what is left out.
class UploadSink final : public Sink {
 public:
  explicit UploadSink(std::unique_ptr<ObjectWriter> object) : object_(std::move(object)) {}

  bool is_sequential() const override { return true; }
  void set_size(uint64_t bytes) override { object_->set_size(bytes); }
  Result<void> write(uint64_t offset, ByteSpan bytes) override {
    assert(offset >= written_);
    TRY(write_zeros(offset - written_));
    TRY(object_->append(bytes));
    written_ += bytes.size();
    return {};
  }
  Result<void> finish(uint64_t size) override {
    TRY(write_zeros(size - written_));
    return object_->finish();
  }

 private:
  Result<void> write_zeros(uint64_t count) {
    static constexpr std::array<std::byte, 64 << 10> kZeros{};
    while (count > 0) {
      const size_t step = std::min<uint64_t>(count, kZeros.size());
      TRY(object_->append(ByteSpan(kZeros).first(step)));
      written_ += step;
      count -= step;
    }
    return {};
  }

  std::unique_ptr<ObjectWriter> object_;
  uint64_t written_ = 0;  // bytes
};

class SpooledUpload final : public Sink {
 public:
  SpooledUpload(UniqueFd file, std::string folder, std::string url)
      : file_(std::move(file)), folder_(std::move(folder)), url_(std::move(url)) {}

  bool is_sequential() const override { return false; }
  Result<void> write(uint64_t offset, ByteSpan bytes) override {
    while (!bytes.empty()) {
      const ssize_t done =
          ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) {
        return in_file(fail_errno(errno, "cannot keep the image until it is sent (TMPDIR)"),
                       folder_);
      }
      offset += static_cast<uint64_t>(done);
      bytes = bytes.subspan(static_cast<size_t>(done));
    }
    return {};
  }

  Result<void> finish(uint64_t size) override {
    if (::ftruncate(file_.get(), static_cast<off_t>(size)) != 0) return cannot_read(errno);
    return send_object(
        url_, size, [this](uint64_t offset, MutableByteSpan out) { return read(offset, out); },
        write_settings(size));
  }

 private:
  Result<void> read(uint64_t offset, MutableByteSpan out) const {
    while (!out.empty()) {
      const ssize_t got = ::pread(file_.get(), out.data(), out.size(), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return cannot_read(got < 0 ? errno : EIO);
      offset += static_cast<uint64_t>(got);
      out = out.subspan(static_cast<size_t>(got));
    }
    return {};
  }

  Failure cannot_read(int error) const {
    return in_file(fail_errno(error, "cannot read the image that was kept there (TMPDIR)"),
                   folder_);
  }

  UniqueFd file_;  // without a name
  std::string folder_;
  std::string url_;
};

Result<std::unique_ptr<Sink>> open_spooled(const std::string& url) {
  const std::string folder = first_set({environment("TMPDIR"), "/var/tmp"});
  UniqueFd file(::open(folder.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
  if (!file.valid()) {
    return in_file(fail_errno(errno, "cannot keep an image there until it is sent: set TMPDIR"),
                   folder);
  }
  return std::make_unique<SpooledUpload>(std::move(file), folder, url);
}

}  // namespace

Result<std::unique_ptr<Sink>> open_upload(const std::string& url, const Disk& source,
                                          uint64_t expected, WriteOrder order) {
  TRY(check_is_no_file_of(url, source));
  if (order == WriteOrder::kAny) return open_spooled(url);
  return std::make_unique<UploadSink>(TRY(create_object(url, write_settings(expected))));
}

}  // namespace underlay::img
