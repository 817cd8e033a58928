#include "io/cache/cached_source.h"

#include <algorithm>

namespace underlay {
namespace {

// For another process to fetch what we want. After that we fetch it as well.
constexpr std::chrono::milliseconds kOthersFetch{10'000};

// Looks at the cache for one block that brought nothing: other threads failed, other processes have
// fetched and evicted it. After that it is read past the cache.
constexpr int kTries = 4;

// Blocks from `first` on that lie in one group, at most `count`.
unsigned within_group(uint64_t first, uint64_t count) {
  return static_cast<unsigned>(std::min<uint64_t>(count, kGroupBlocks - first % kGroupBlocks));
}

}  // namespace

Result<void> CachedSource::read_at(uint64_t offset, MutableByteSpan out) const {
  if (!range_within(offset, out.size(), size())) return remote_->read_at(offset, out);
  note(offset, out.size());
  for (int tries = 0; !out.empty() && tries < kTries;) {
    const size_t done = TRY(read_block(offset, out));
    tries = done == 0 ? tries + 1 : 0;
    offset += done;
    out = out.subspan(done);
  }
  return out.empty() ? Result<void>() : remote_->read_at(offset, out);
}

// The front of `out`: from the cache what lies in one block, or what one fetch brings.
Result<size_t> CachedSource::read_block(uint64_t offset, MutableByteSpan out) const {
  const uint64_t block = offset / kCacheBlock;
  const size_t skip = static_cast<size_t>(offset % kCacheBlock);
  const size_t part = std::min(out.size(), object_.block_length(block) - skip);
  if (shared_.cache.read(object_, block, skip, out.first(part))) return part;

  const uint64_t end = div_round_up(offset + out.size(), kCacheBlock);
  const unsigned wanted = std::min(within_group(block, end - block), kMostBlocks);
  const Flights::Joined joined =
      shared_.flights.join(object_.number(), block, wanted, remote_.get());
  if (joined.error) return Failure(*joined.error);
  std::shared_ptr<const Flights::Buffer> bytes = joined.bytes;
  if (joined.own) bytes = TRY(fly(*joined.own));
  // Nothing: another thread failed, or another process was faster. Look again.
  if (!bytes || bytes->size() <= joined.skip) return size_t{0};
  const ByteSpan got = ByteSpan(*bytes).subspan(joined.skip + skip);
  const size_t done = std::min(out.size(), got.size());
  std::copy_n(got.begin(), done, out.begin());
  return done;
}

// Fetches the first blocks of a flight that are not in the cache, and keeps them: those who wait do
// not wait for that. Null when the first one is there by now.
Result<std::shared_ptr<const Flights::Buffer>> CachedSource::fly(Flights::Own& own) const {
  const uint64_t first = own->first();
  const DiskCache::FetchLock lock = shared_.cache.lock(object_, first, own->count(), kOthersFetch);
  unsigned count = 0;
  while (count < own->count() && !shared_.cache.has(object_, first + count)) ++count;
  if (count == 0) return nullptr;
  const uint64_t begin = first * kCacheBlock;
  const uint64_t end = std::min(size(), (first + count) * kCacheBlock);
  auto bytes = std::make_shared<Flights::Buffer>(static_cast<size_t>(end - begin));
  if (auto fetched = remote_->fetch_at(begin, *bytes); !fetched) {
    own.failed(fetched.error());
    return Failure(std::move(fetched).error());
  }
  own.arrived(bytes);
  shared_.cache.count_fetch(bytes->size());
  for (unsigned i = 0; i < count; ++i) {
    shared_.cache.store(object_, first + i,
                        ByteSpan(*bytes).subspan(static_cast<size_t>(i * kCacheBlock),
                                                 object_.block_length(first + i)));
  }
  return bytes;
}

Result<CachedSource::Fetched> CachedSource::fetch(uint64_t first, uint64_t count) const {
  uint64_t block = first;
  while (block < first + count && shared_.cache.has(object_, block)) ++block;
  if (block == first + count) return Fetched{.next = block, .bytes = 0};
  if (!shared_.cache.may_store()) return fail(ErrorKind::kLimit, "the cache keeps nothing now");
  const unsigned wanted = std::min(within_group(block, first + count - block), kMostBlocks);
  const Flights::Joined joined =
      shared_.flights.join(object_.number(), block, wanted, remote_.get());
  if (joined.error) return Failure(*joined.error);
  if (!joined.own) return Fetched{.next = block + 1, .bytes = 0};
  const auto bytes = TRY(fly(*joined.own));
  if (!bytes) return Fetched{.next = block + 1, .bytes = 0};
  return Fetched{.next = block + div_round_up(bytes->size(), kCacheBlock), .bytes = bytes->size()};
}

Result<uint64_t> CachedSource::fetch_run(BlockRun run, const std::atomic<bool>& ending) const {
  uint64_t bytes = 0;
  const uint64_t end = run.first + run.count;
  for (uint64_t block = run.first; block < end && !ending;) {
    const Fetched fetched = TRY(fetch(block, end - block));
    block = fetched.next;
    bytes += fetched.bytes;
  }
  return bytes;
}

BlockRun CachedSource::take_request(BlockRun& run) {
  const BlockRun request{.first = run.first,
                         .count = std::min(run.count, kMostBlocks - run.first % kMostBlocks)};
  run.first += request.count;
  run.count -= request.count;
  return request;
}

size_t CachedSource::read_cached(uint64_t offset, MutableByteSpan out) const {
  if (!range_within(offset, out.size(), size())) return 0;
  size_t done = 0;
  while (done < out.size()) {
    const uint64_t block = (offset + done) / kCacheBlock;
    const size_t skip = static_cast<size_t>((offset + done) % kCacheBlock);
    const size_t part = std::min(out.size() - done, object_.block_length(block) - skip);
    const size_t got = shared_.cache.read_now(object_, block, skip, out.subspan(done, part));
    done += got;
    if (got < part) break;
  }
  // What is missing comes to read_at().
  if (done > 0) note(offset, done);
  return done;
}

void CachedSource::prefetch(uint64_t offset, uint64_t length) const {
  const uint64_t first = offset / kCacheBlock;
  const uint64_t end = std::min(div_round_up(offset + length, kCacheBlock), object_.blocks());
  if (first < end) shared_.ahead.fetch_ahead(weak_from_this(), first, end - first);
}

// Never waits for long: a read that is not noted as sequential does no harm.
void CachedSource::note(uint64_t offset, uint64_t length) const {
  if (record_) record_->note(offset / kCacheBlock, div_round_up(offset + length, kCacheBlock));
  std::optional<SequentialReads::Range> ahead;
  {
    const std::unique_lock lock(sequential_mutex_, std::try_to_lock);
    if (lock.owns_lock()) ahead = sequential_.note(offset, length);
  }
  if (ahead && ahead->begin < size()) prefetch(ahead->begin, ahead->end - ahead->begin);
}

}  // namespace underlay
