#include "tools/img/disk_walk.h"

#include <algorithm>
#include <cerrno>
#include <optional>

#include "tools/common/interruption.h"
#include "tools/common/progress.h"
#include "tools/img/say.h"

namespace underlay::img {
namespace {

using Take = std::function<Result<void>(const DiskPart&)>;

class Walk {
 public:
  Walk(const Take& take, WalkCounts& counts, std::optional<Progress>& progress)
      : take_(take), counts_(counts), progress_(progress) {}

  Result<void> take(const DiskPart& part) {
    if (!part.is_zero()) return take_counted(part);
    DiskPart step = part;
    for (uint64_t done = 0; done < part.length; done += step.length) {
      if (is_interrupted()) return fail_errno(EINTR, "interrupted");
      step.offset = part.offset + done;
      step.length = std::min(part.length - done, kZeroStep);
      TRY(take_counted(step));
    }
    return {};
  }

 private:
  Result<void> take_counted(const DiskPart& part) {
    TRY(take_(part));
    counts_.done += part.length;
    counts_.stored += part.stored;
    if (progress_) progress_->add(part.length);
    return {};
  }

  const Take& take_;
  WalkCounts& counts_;
  std::optional<Progress>& progress_;
};

Result<void> walk(const Disk& disk, ReadSettings settings, Walk walk) {
  OrderedReads reads(disk, 0, disk.size(), std::move(settings));
  while (const auto part = TRY(reads.next())) TRY(walk.take(*part));
  return disk.check_unchanged();
}

}  // namespace

WalkManners walk_manners(const Given& given, std::string_view done_word) {
  return {.done_word = done_word, .quiet = given.has("quiet"), .progress = given.has("progress")};
}

Result<void> walk_disk(const Disk& disk, ReadSettings settings, const WalkManners& manners,
                       WalkCounts& counts, const Take& take) {
  std::optional<Progress> progress;
  if (!manners.quiet) progress.emplace(manners.progress);
  if (progress) progress->begin(disk.size());
  const auto walked = walk(disk, std::move(settings), Walk(take, counts, progress));
  if (progress) progress->end();
  const bool interrupted = !walked && walked.error().sys_errno == EINTR && is_interrupted();
  if (interrupted || (manners.progress && !manners.quiet)) {
    say_error(fmt::format("{}{} of {} bytes {}, {} of them read",
                          interrupted ? "interrupted: " : "", counts.done, disk.size(),
                          manners.done_word, counts.stored));
  }
  return walked;
}

}  // namespace underlay::img
