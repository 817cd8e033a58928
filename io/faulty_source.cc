#include "io/faulty_source.h"

#include <cerrno>

namespace underlay {

Result<void> FaultySource::read_at(uint64_t offset, MutableByteSpan out) const {
  ++reads_;
  const uint64_t bad_offset = bad_offset_;
  const uint64_t bad_length = bad_length_;
  const bool in_range =
      bad_length > 0 && offset < bad_offset + bad_length && bad_offset < offset + out.size();
  const bool counted_down = countdown_ >= 0 && countdown_-- == 0;
  if (counted_down || in_range) {
    return in_file(fail_errno(EIO, "cannot read {} bytes", out.size()), name(), offset);
  }
  return inner_->read_at(offset, out);
}

}  // namespace underlay
