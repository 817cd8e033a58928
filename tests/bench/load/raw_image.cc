#include "tests/bench/load/raw_image.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "io/unique_fd.h"

namespace underlay::bench {

Result<RawImage> RawImage::open(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (!fd.valid() || ::fstat(fd.get(), &status) != 0) {
    return in_file(fail_errno(errno, "cannot be opened"), path);
  }
  const auto size = static_cast<size_t>(status.st_size);
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (memory == MAP_FAILED) return in_file(fail_errno(errno, "cannot be mapped"), path);
  RawImage image;
  image.path_ = path;
  image.bytes_ = ByteSpan(static_cast<const std::byte*>(memory), size);
  return image;
}

RawImage::RawImage(RawImage&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

RawImage& RawImage::operator=(RawImage&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

RawImage::~RawImage() {
  if (present()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

Result<void> RawImage::compare(uint64_t offset, ByteSpan got) const {
  if (!range_within(offset, got.size(), bytes_.size())) {
    return in_file(fail(ErrorKind::kUsage,
                        "has {} bytes, the export more; keep within with --range", bytes_.size()),
                   path_);
  }
  const ByteSpan wanted = bytes_.subspan(offset, got.size());
  if (std::memcmp(wanted.data(), got.data(), got.size()) == 0) return {};
  const auto differs = std::mismatch(wanted.begin(), wanted.end(), got.begin());
  const auto at = offset + static_cast<uint64_t>(differs.first - wanted.begin());
  return in_file(
      fail(ErrorKind::kMalformed, "the server has sent {:#04x} for the byte {:#04x}",
           std::to_integer<unsigned>(*differs.second), std::to_integer<unsigned>(*differs.first)),
      path_, at);
}

}  // namespace underlay::bench
