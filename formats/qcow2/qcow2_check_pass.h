// What all parts of a qcow2 check share while they go through the image once.
#pragma once

#include <algorithm>
#include <string>

#include "formats/inspection/check_report.h"
#include "formats/qcow2/qcow2_layout.h"
#include "formats/qcow2/qcow2_references.h"
#include "io/source.h"

namespace underlay {

// How far a check is, over all passes. In entries of L1 tables.
struct Qcow2CheckProgress {
  uint64_t done = 0;
  uint64_t total = 0;
};

class Qcow2CheckPass {
 public:
  // The references outlive this. `first`: further passes count other clusters, and tell nothing
  // again.
  Qcow2CheckPass(const Source& file, const Qcow2Header& header, Qcow2References& references,
                 CheckReport& report, Qcow2CheckProgress& progress, bool first)
      : file_(file),
        header_(header),
        references_(references),
        report_(report),
        progress_(progress),
        first_(first) {}

  const Source& file() const { return file_; }
  const Qcow2Header& header() const { return header_; }
  CheckReport& report() { return report_; }
  bool first() const { return first_; }

  // Tells a finding, which counts as `times` of its kind.
  template <class... Args>
  void tell(Finding::Kind kind, std::string_view code, uint64_t offset, uint64_t times,
            fmt::format_string<Args...> format, Args&&... args) {
    tell(kind, times, [&] {
      return Finding{.kind = kind,
                     .code = std::string(code),
                     .message = fmt::format(format, std::forward<Args>(args)...),
                     .offset = offset};
    });
  }
  // The same of make(), as CheckReport::add().
  template <class Make>
  void tell(Finding::Kind kind, uint64_t times, const Make& make) {
    if (first_) report_.add(kind, make, times);
  }
  // What is wrong is corruption; what cannot be read is a failure.
  void tell(std::string code, const Error& error, uint64_t times = 1);

  // The bytes [offset, offset + length) are used `times` times, as the 8 bytes at `named_at` say.
  // Tells when they lie beyond the end of the file, and then does not count them.
  void use(Qcow2Use use, uint64_t offset, uint64_t length, uint64_t times, uint64_t named_at) {
    if (length == 0) return;
    if (!range_within(offset, length, file_.size()) &&
        !may_be_cut(use, offset, length, times, named_at)) {
      return;
    }
    const uint64_t last = (offset + length - 1) >> header_.cluster_bits;
    for (uint64_t cluster = offset >> header_.cluster_bits; cluster <= last; ++cluster) {
      references_.add(use, cluster, times);
    }
  }

  // To be called often. Fails when the operator breaks off.
  Result<void> advance(uint64_t l1_entries) {
    progress_.done += l1_entries;
    return report_.progress(std::min(progress_.done, progress_.total), progress_.total);
  }

  // Fills `out` from `offset`; with zeros where the file has ended: what lies there was told.
  Result<void> read(uint64_t offset, MutableByteSpan out) const;

 private:
  bool may_be_cut(Qcow2Use use, uint64_t offset, uint64_t length, uint64_t times,
                  uint64_t named_at);

  const Source& file_;
  const Qcow2Header& header_;
  Qcow2References& references_;
  CheckReport& report_;
  Qcow2CheckProgress& progress_;
  const bool first_;
};

}  // namespace underlay
