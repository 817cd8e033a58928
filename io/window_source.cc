#include "io/window_source.h"

#include <cassert>

namespace underlay {

WindowSource::WindowSource(std::shared_ptr<const Source> whole, uint64_t start, uint64_t size,
                           std::string name)
    : whole_(std::move(whole)), start_(start), size_(size), name_(std::move(name)) {
  assert(range_within(start, size, whole_->size()));
}

Result<void> WindowSource::read_at(uint64_t offset, MutableByteSpan out) const {
  if (range_within(offset, out.size(), size_)) return whole_->read_at(start_ + offset, out);
  return in_file(
      fail(ErrorKind::kTruncated, "{} bytes lie beyond the end, at {} bytes", out.size(), size_),
      name_, offset);
}

size_t WindowSource::read_cached(uint64_t offset, MutableByteSpan out) const {
  if (!range_within(offset, out.size(), size_)) return 0;
  return whole_->read_cached(start_ + offset, out);
}

std::optional<FileIdentity> WindowSource::identity() const {
  auto identity = whole_->identity();
  if (identity) identity->start += start_;
  return identity;
}

}  // namespace underlay
