#include "io/memory_source.h"

#include <algorithm>

namespace underlay {

MemorySource::MemorySource(std::vector<std::byte> bytes, std::string name)
    : bytes_(std::move(bytes)), name_(std::move(name)) {}

Result<void> MemorySource::read_at(uint64_t offset, MutableByteSpan out) const {
  if (range_within(offset, out.size(), bytes_.size())) {
    (void)read_cached(offset, out);
    return {};
  }
  return in_file(fail(ErrorKind::kTruncated, "{} bytes lie beyond the end, at {} bytes", out.size(),
                      bytes_.size()),
                 name_, offset);
}

size_t MemorySource::read_cached(uint64_t offset, MutableByteSpan out) const {
  if (!range_within(offset, out.size(), bytes_.size())) return 0;
  std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
  return out.size();
}

}  // namespace underlay
