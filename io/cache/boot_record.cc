#include "io/cache/boot_record.h"

#include <algorithm>

#include "io/cache/group_layout.h"

namespace underlay {
namespace {

constexpr size_t kRunBytes = 16;

}  // namespace

void BootRecord::note(uint64_t first, uint64_t end) {
  if (ended_.load(std::memory_order_relaxed)) return;
  const std::lock_guard lock(mutex_);
  if (begun_ && !first_read_) first_read_ = Clock::now();
  for (uint64_t block = first; block < end && read_.size() < kMostBlocks; ++block) {
    if (!read_.insert(block).second) continue;
    if (!runs_.empty() && runs_.back().first + runs_.back().count == block) {
      ++runs_.back().count;
    } else {
      runs_.push_back({.first = block, .count = 1});
    }
  }
  if (read_.size() == kMostBlocks) ended_ = true;
}

void BootRecord::begin() {
  const std::lock_guard lock(mutex_);
  begun_ = true;
}

bool BootRecord::is_over(Clock::time_point now) const {
  const std::lock_guard lock(mutex_);
  return ended_ || (first_read_ && now - *first_read_ >= kTime);
}

std::vector<BlockRun> BootRecord::end() {
  ended_ = true;
  const std::lock_guard lock(mutex_);
  return first_read_ ? runs_ : std::vector<BlockRun>();
}

std::vector<std::byte> boot_file(const std::vector<BlockRun>& runs) {
  std::vector<std::byte> file(kDigestBytes + runs.size() * kRunBytes);
  const MutableByteSpan table = MutableByteSpan(file).subspan(kDigestBytes);
  for (size_t i = 0; i < runs.size(); ++i) {
    store_be<uint64_t>(table, i * kRunBytes, runs[i].first);
    store_be<uint64_t>(table, i * kRunBytes + 8, runs[i].count);
  }
  std::ranges::copy(digest_of(table), file.begin());
  return file;
}

std::vector<BlockRun> read_boot_file(ByteSpan file, uint64_t blocks) {
  if (file.size() <= kDigestBytes || (file.size() - kDigestBytes) % kRunBytes != 0) return {};
  const ByteSpan table = file.subspan(kDigestBytes);
  const BlockDigest digest = digest_of(table);
  if (!std::ranges::equal(digest, file.first(kDigestBytes))) return {};
  std::vector<BlockRun> runs;
  for (size_t at = 0; at < table.size(); at += kRunBytes) {
    const BlockRun run{.first = load_be<uint64_t>(table, at),
                       .count = load_be<uint64_t>(table, at + 8)};
    if (run.count == 0 || !range_within(run.first, run.count, blocks)) return {};
    runs.push_back(run);
  }
  return runs;
}

}  // namespace underlay
