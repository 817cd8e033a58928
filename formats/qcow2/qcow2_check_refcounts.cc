#include "formats/qcow2/qcow2_check_refcounts.h"

#include <algorithm>

namespace underlay {
namespace {

using Kind = Finding::Kind;

constexpr uint64_t kClustersBetweenProgress = 1 << 16;

std::string clusters(uint64_t first, uint64_t count) {
  if (count == 1) return fmt::format("cluster {}", first);
  return fmt::format("each of the clusters {} to {}", first, first + count - 1);
}

}  // namespace

Result<void> Qcow2RefcountCheck::compare(Qcow2CheckPass& pass, const Qcow2References& references) {
  for (uint64_t cluster = references.first(); cluster < references.end(); ++cluster) {
    if (cluster % kClustersBetweenProgress == 0) TRY(pass.advance(0));
    const Qcow2Uses& uses = references.at(cluster);
    // Behind the file's end only the tail of a table can be counted.
    if (cluster >= clusters_ && uses.count() == 0) break;
    if (refcounts_ == nullptr) {
      compare_cluster(cluster, uses, uses.count());
      continue;
    }
    const auto refcount = refcounts_->at(cluster);
    if (refcount) {
      compare_cluster(cluster, uses, *refcount);
      continue;
    }
    tell_run();
    const uint64_t block_end =
        (cluster / refcounts_->block_clusters() + 1) * refcounts_->block_clusters();
    const uint64_t stop = std::min({block_end, references.end(), std::max(clusters_, cluster + 1)});
    Finding finding = finding_of(Kind::kFailure, "refcounts-unreadable", refcount.error());
    finding.message += fmt::format("; so the refcounts of {} clusters from {} on are not known",
                                   stop - cluster, cluster);
    report_.add(finding, stop - cluster);
    cluster = stop - 1;
  }
  tell_run();
  return {};
}

std::optional<uint64_t> Qcow2RefcountCheck::next(const Qcow2References& references) {
  std::optional<uint64_t> next = references.next();
  if (refcounts_ == nullptr) return next;
  const uint64_t end = references.end();
  const uint64_t span = refcounts_->block_clusters();
  for (uint64_t index = end / span; index < refcounts_->table_entries(); ++index) {
    const uint64_t first = std::max(index * span, end);
    if (first >= clusters_ || (next && *next <= first)) break;
    const auto entry = refcounts_->entry(index);
    // What cannot be read is told when it is compared.
    if (!entry || entry->offset != 0) return first;
  }
  return next;
}

void Qcow2RefcountCheck::compare_cluster(uint64_t cluster, const Qcow2Uses& uses,
                                         uint64_t refcount) {
  if (uses.count() != 0 || refcount != 0) end_ = cluster + 1;
  if (uses.count() == refcount && !uses.overlap()) {
    if (run_.length != 0) tell_run();
    return;
  }
  if (run_.length != 0 && run_.uses == uses && run_.refcount == refcount &&
      run_.first + run_.length == cluster) {
    ++run_.length;
    return;
  }
  tell_run();
  run_ = {.first = cluster, .length = 1, .uses = uses, .refcount = refcount};
}

void Qcow2RefcountCheck::tell_run() {
  const Run run = std::exchange(run_, Run());
  if (run.length == 0) return;
  tell_overflow(run);
  const uint64_t max = refcounts_ == nullptr ? UINT64_MAX : refcounts_->max();
  const uint64_t count = std::min(run.uses.count(), max);
  const auto differs = [&] {
    const std::string as = run.uses.count() == 0 ? "" : fmt::format(" ({})", run.uses.names());
    return fmt::format("{} has refcount {}, but is used {} times{}",
                       clusters(run.first, run.length), run.refcount, count, as);
  };
  if (run.refcount > count) {
    tell(Kind::kLeak, "leaked-cluster", run, run.length, differs);
  } else if (run.refcount < count) {
    tell(Kind::kCorruption, run.uses.overlap() ? "overlap" : "refcount-too-low", run, run.length,
         differs);
    return;
  }
  // A refcount that counts the overlap makes it no better. Blocks of refcounts were told alone.
  if (run.uses.overlap() && !run.uses.has(Qcow2Use::kRefcountBlock)) {
    tell(Kind::kCorruption, "counted-overlap", run, run.length, [&] {
      return fmt::format("{} is used {} times ({}), which exclude each other",
                         clusters(run.first, run.length), run.uses.count(), run.uses.names());
    });
  }
}

// As QEMU counts: each use that a refcount of this width cannot count is one more error.
void Qcow2RefcountCheck::tell_overflow(const Run& run) {
  if (refcounts_ == nullptr || run.uses.count() <= refcounts_->max()) return;
  const uint64_t count = run.length * (run.uses.count() - refcounts_->max());
  tell(Kind::kCorruption, "refcount-overflow", run, count, [&] {
    return fmt::format("{} is used {} times ({}), but refcounts of this image count up to {} only",
                       clusters(run.first, run.length), run.uses.count(), run.uses.names(),
                       refcounts_->max());
  });
}

template <class Message>
void Qcow2RefcountCheck::tell(Kind kind, std::string_view code, const Run& run, uint64_t count,
                              const Message& message) {
  const auto finding = [&] {
    return Finding{.kind = kind,
                   .code = std::string(code),
                   .message = message(),
                   .offset = run.first << header_.cluster_bits};
  };
  report_.add(kind, finding, count);
}

}  // namespace underlay
