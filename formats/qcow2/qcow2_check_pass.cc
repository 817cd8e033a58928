#include "formats/qcow2/qcow2_check_pass.h"

#include <algorithm>

namespace underlay {

void Qcow2CheckPass::tell(std::string code, const Error& error, uint64_t times) {
  if (!first_) return;
  const auto kind =
      error.kind == ErrorKind::kIo ? Finding::Kind::kFailure : Finding::Kind::kCorruption;
  report_.add(finding_of(kind, std::move(code), error), times);
}

// QEMU counts what reaches less than a cluster beyond the end of the file as if it were there: the
// last cluster need not be whole. Tables must be, and the header was read.
bool Qcow2CheckPass::may_be_cut(Qcow2Use use, uint64_t offset, uint64_t length, uint64_t times,
                                uint64_t named_at) {
  const uint64_t size = file_.size();
  const bool counts =
      range_within(offset, length, UINT64_MAX) && offset + length - size < header_.cluster_size();
  const bool may_end =
      use == Qcow2Use::kData || use == Qcow2Use::kCompressed || use == Qcow2Use::kHeader;
  if (!counts || !may_end || offset >= size) {
    tell(Finding::Kind::kCorruption, times, [&] {
      return Finding{
          .kind = Finding::Kind::kCorruption,
          .code = fmt::format("{}-beyond-end", qcow2_use_code(use)),
          .message = fmt::format("{} of {} bytes at {} ends beyond the end of the file, which has "
                                 "{} bytes: the file is truncated or damaged",
                                 qcow2_use_name(use), length, offset, size),
          .offset = named_at};
    });
  }
  return counts;
}

Result<void> Qcow2CheckPass::read(uint64_t offset, MutableByteSpan out) const {
  const uint64_t size = file_.size();
  const uint64_t present = std::min<uint64_t>(size - std::min(offset, size), out.size());
  std::fill(out.begin() + static_cast<std::ptrdiff_t>(present), out.end(), std::byte{0});
  if (present == 0) return {};
  return file_.read_at(offset, out.first(static_cast<size_t>(present)));
}

}  // namespace underlay
