// The references that were counted in a qcow2 image against the refcounts that it keeps.
#pragma once

#include <optional>

#include "formats/qcow2/qcow2_check_pass.h"
#include "formats/qcow2/qcow2_refcounts.h"

namespace underlay {

// Over all windows of the file, one after the other.
class Qcow2RefcountCheck {
 public:
  // `refcounts`: null when the image's are of no use; then only overlaps are told. `clusters`: of
  // the file, a cut last one among them.
  Qcow2RefcountCheck(CheckReport& report, const Qcow2Header& header, Qcow2Refcounts* refcounts,
                     uint64_t clusters)
      : report_(report), header_(header), refcounts_(refcounts), clusters_(clusters) {}

  // Compares the clusters of the window. Fails when the operator breaks off.
  Result<void> compare(Qcow2CheckPass& pass, const Qcow2References& references);

  // Where the next window must begin, behind `end`, for anything to be compared in it.
  std::optional<uint64_t> next(const Qcow2References& references);

  // Behind the last cluster that is used, or has a refcount. At least one.
  uint64_t end() const { return end_; }

 private:
  // Neighbours of which the same is to be said.
  struct Run {
    uint64_t first = 0;
    uint64_t length = 0;
    Qcow2Uses uses;
    uint64_t refcount = 0;
  };

  void compare_cluster(uint64_t cluster, const Qcow2Uses& uses, uint64_t refcount);
  void tell_run();
  void tell_overflow(const Run& run);
  // A finding about the run, which counts as `count` of its kind, in the words of message().
  template <class Message>
  void tell(Finding::Kind kind, std::string_view code, const Run& run, uint64_t count,
            const Message& message);

  CheckReport& report_;
  const Qcow2Header& header_;
  Qcow2Refcounts* refcounts_;
  const uint64_t clusters_;
  uint64_t end_ = 1;
  Run run_;
};

}  // namespace underlay
