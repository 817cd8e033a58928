#include "formats/inspection/check_report.h"

#include <cerrno>

namespace underlay {
namespace {

Finding::Kind kind_of(const Error& error) {
  switch (error.kind) {
    case ErrorKind::kIo:
    case ErrorKind::kLimit:
      return Finding::Kind::kFailure;
    case ErrorKind::kUnsupported:
      return Finding::Kind::kNotice;
    default:
      return Finding::Kind::kCorruption;
  }
}

}  // namespace

void CheckReport::add(const Finding& finding, uint64_t count) {
  counts_[static_cast<size_t>(finding.kind)] += count;
  if (told_ >= kMaxTold) {
    ++untold_;
    return;
  }
  ++told_;
  sink_(finding);
}

void CheckReport::add(std::string code, Error error) {
  const bool failed = error.kind == ErrorKind::kIo;
  const std::optional<uint64_t> offset = error.offset;
  error.offset.reset();  // who shows the finding says it
  add({.kind = failed ? Finding::Kind::kFailure : Finding::Kind::kCorruption,
       .code = std::move(code),
       .message = error.to_string(),
       .offset = offset});
}

void CheckReport::add(const Defects& defects) {
  for (const Defect& defect : defects) {
    add(finding_of(kind_of(defect.error), std::string(defect.code), defect.error));
  }
}

void CheckReport::add(const Remarks& remarks) {
  for (const Remark& remark : remarks) {
    Finding finding = finding_of(remark);
    if (remark.is_damage) finding.kind = Finding::Kind::kCorruption;
    add(finding);
  }
}

Result<void> CheckReport::progress(uint64_t done, uint64_t total) {
  if (progress_(done, total)) return {};
  return fail_errno(EINTR, "the check was broken off");
}

}  // namespace underlay
