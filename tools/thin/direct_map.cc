#include "tools/thin/direct_map.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "tools/thin/direct_runs.h"

namespace underlay::thin {
namespace {

using Kind = DirectRun::Kind;

// Why sectors go to the server.
enum Cause : size_t { kCompressed, kNoFile, kUnaligned, kPastEnd, kFiles, kExtents, kTargets };
constexpr std::array<const char*, 7> kCauseWords = {
    "compressed",
    "not in a local file",
    "not on whole sectors of the file",
    "beyond the end of the file",
    "in more files than can be mapped",
    "in an image of too many pieces to look at",
    "in too many small pieces",
};

// Guest bytes of one kind, one after the other.
struct ByteRun {
  Kind kind = Kind::kServer;
  Cause cause = kCompressed;  // kServer
  uint64_t start = 0;
  uint64_t length = 0;
  const Source* source = nullptr;  // kFile
  uint64_t offset = 0;             // kFile: of the first byte in it
};

ByteRun byte_run(const Extent& extent, uint64_t start) {
  ByteRun run{.start = start, .length = extent.length};
  if (extent.kind == Extent::Kind::kZero) {
    run.kind = Kind::kZero;
  } else if (extent.kind == Extent::Kind::kData && extent.source->fd()) {
    run.kind = Kind::kFile;
    run.source = extent.source;
    run.offset = extent.source_offset;
  } else {
    run.cause = extent.kind == Extent::Kind::kCompressed ? kCompressed : kNoFile;
  }
  return run;
}

bool goes_on(const ByteRun& run, const ByteRun& next) {
  if (run.kind != next.kind) return false;
  if (run.kind == Kind::kServer) return run.cause == next.cause;
  return run.kind == Kind::kZero ||
         (run.source == next.source && next.offset - run.offset == run.length);
}

// Cuts runs of bytes to runs of sectors. Memory is bounded by the limits, whatever comes.
class Collector {
 public:
  explicit Collector(const DirectLimits& limits) : limits_(limits) {}

  // Runs come in order and without gaps.
  void add(const ByteRun& run) {
    if (last_.length > 0 && goes_on(last_, run)) {
      last_.length += run.length;
      return;
    }
    cut(last_);
    last_ = run;
  }

  // REQUIRES: what was added ends with a whole sector.
  DirectMap finish() && {
    cut(last_);
    join_runs(map_.runs, limits_.targets);
    drop_unused_files();
    for (const DirectRun& run : map_.runs) count(run);
    map_.sectors = next_;
    map_.reason = reason();
    return std::move(map_);
  }

 private:
  void cut(const ByteRun& run) {
    const uint64_t first = div_round_up(run.start, Disk::kSectorBytes);
    const uint64_t end = (run.start + run.length) / Disk::kSectorBytes;
    // The sector in which the run begins has bytes of the run before it, too.
    if (next_ < first) append_server(first - next_, kUnaligned);
    if (end <= first) return;
    if (run.kind == Kind::kZero) {
      append({.kind = Kind::kZero, .start = next_, .sectors = end - first});
    } else if (run.kind == Kind::kServer) {
      append_server(end - first, run.cause);
    } else {
      append_file(run, first, end - first);
    }
  }

  void append_file(const ByteRun& run, uint64_t first, uint64_t sectors) {
    const uint64_t offset = run.offset + (first * Disk::kSectorBytes - run.start);
    if (offset < run.offset || !is_aligned(offset, Disk::kSectorBytes)) {
      return append_server(sectors, kUnaligned);
    }
    const auto file = file_index(*run.source);
    if (!file) return append_server(sectors, kFiles);
    // A loop device has the file's whole sectors only.
    const uint64_t file_sector = offset / Disk::kSectorBytes;
    const uint64_t file_end = run.source->size() / Disk::kSectorBytes;
    const uint64_t there = file_sector < file_end ? std::min(sectors, file_end - file_sector) : 0;
    if (there > 0) {
      append({.kind = Kind::kFile,
              .start = next_,
              .sectors = there,
              .file = *file,
              .file_sector = file_sector});
    }
    if (there < sectors) append_server(sectors - there, kPastEnd);
  }

  void append_server(uint64_t sectors, Cause cause) {
    causes_[cause] += sectors;
    append({.kind = Kind::kServer, .start = next_, .sectors = sectors});
  }

  void append(const DirectRun& run) {
    append_run(map_.runs, run);
    next_ += run.sectors;
    // Not each time, and not down to the limit: what comes later shall have the same chance.
    if (map_.runs.size() > 8 * limits_.targets) join_runs(map_.runs, 4 * limits_.targets);
  }

  std::optional<unsigned> file_index(const Source& source) {
    const auto known = indexes_.find(&source);
    if (known != indexes_.end()) return known->second;
    if (map_.files.size() == limits_.files) return std::nullopt;
    const auto index = static_cast<unsigned>(map_.files.size());
    map_.files.push_back(&source);
    indexes_.emplace(&source, index);
    return index;
  }

  // Joining may have left files without a run.
  void drop_unused_files() {
    std::vector<std::optional<unsigned>> indexes(map_.files.size());
    std::vector<const Source*> used;
    for (DirectRun& run : map_.runs) {
      if (run.kind != Kind::kFile) continue;
      auto& index = indexes[run.file];
      if (!index) {
        index = static_cast<unsigned>(used.size());
        used.push_back(map_.files[run.file]);
      }
      run.file = *index;
    }
    map_.files = std::move(used);
  }

  void count(const DirectRun& run) {
    if (run.kind == Kind::kFile) map_.file_sectors += run.sectors;
    if (run.kind == Kind::kZero) map_.zero_sectors += run.sectors;
    if (run.kind == Kind::kServer) map_.server_sectors += run.sectors;
  }

  std::string reason() {
    uint64_t joined = map_.server_sectors;
    for (const uint64_t sectors : causes_) joined -= sectors;
    causes_[kTargets] = joined;
    std::string text;
    for (size_t i = 0; i < causes_.size(); ++i) {
      if (causes_[i] == 0) continue;
      text += fmt::format("{}{} bytes {}", text.empty() ? "" : ", ",
                          causes_[i] * Disk::kSectorBytes, kCauseWords[i]);
    }
    return text;
  }

  const DirectLimits& limits_;
  DirectMap map_;
  uint64_t next_ = 0;  // the first sector without a run
  ByteRun last_;
  std::array<uint64_t, kCauseWords.size()> causes_{};  // sectors
  std::unordered_map<const Source*, unsigned> indexes_;
};

}  // namespace

Result<DirectMap> make_direct_map(const Disk& disk, const DirectLimits& limits) {
  Collector collector(limits);
  uint64_t offset = 0;
  for (uint64_t extents = 0; offset < disk.size(); ++extents) {
    const uint64_t rest = disk.size() - offset;
    if (extents == limits.extents) {
      collector.add({.cause = kExtents, .start = offset, .length = rest});
      break;
    }
    const Extent extent = TRY(disk.map(offset, rest, MapFor::kRead));
    collector.add(byte_run(extent, offset));
    offset += extent.length;
  }
  return std::move(collector).finish();
}

}  // namespace underlay::thin
