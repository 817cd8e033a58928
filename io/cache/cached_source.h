// A remote source, read through the cache.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "io/cache/boot_record.h"
#include "io/cache/disk_cache.h"
#include "io/cache/flights.h"
#include "io/cache/sequential_reads.h"
#include "io/source.h"

namespace underlay {

class CachedSource;

// Who fetches what nobody waits for. Thread-safe.
class AheadFetcher {
 public:
  virtual ~AheadFetcher() = default;
  // A hint: dropped when there is too much to do. Does not block.
  virtual void fetch_ahead(const std::weak_ptr<const CachedSource>& source, uint64_t first,
                           uint64_t count) = 0;
};

class CachedSource final : public Source, public std::enable_shared_from_this<CachedSource> {
 public:
  struct Shared {
    DiskCache& cache;
    Flights& flights;
    AheadFetcher& ahead;
  };
  // `object`: what the bytes of `remote` are. What `shared` names outlives it. `record`, if there
  // is one, is told of every read.
  CachedSource(std::shared_ptr<const Source> remote, CacheObject object, const Shared& shared,
               std::shared_ptr<BootRecord> record = nullptr)
      : remote_(std::move(remote)),
        object_(std::move(object)),
        shared_(shared),
        record_(std::move(record)) {}

  const std::string& name() const override { return remote_->name(); }
  uint64_t size() const override { return object_.facts().size; }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override;
  size_t read_cached(uint64_t offset, MutableByteSpan out) const override;
  void prefetch(uint64_t offset, uint64_t length) const override;
  SourceRun run_at(uint64_t offset, uint64_t length) const override {
    return remote_->run_at(offset, length);
  }
  Result<void> check_unchanged() const override { return remote_->check_unchanged(); }
  void look_again() const override { remote_->look_again(); }
  bool is_far() const override { return remote_->is_far(); }
  bool was_replaced() const override { return remote_->was_replaced(); }
  std::optional<std::string> content_id() const override { return object_.facts().id; }
  std::string lasting_name() const override { return remote_->lasting_name(); }
  std::optional<FileIdentity> identity() const override { return remote_->identity(); }

  const CacheObject& object() const { return object_; }

  // Brings blocks into the cache. The bytes that had to be fetched for that: those from `first` on
  // that one request brings; the rest is left, and `next` is where it begins. Fails when nothing
  // can be kept. May block.
  struct Fetched {
    uint64_t next = 0;
    uint64_t bytes = 0;
  };
  // REQUIRES: count > 0, first + count <= object().blocks().
  Result<Fetched> fetch(uint64_t first, uint64_t count) const;

  // The same with as many requests as that takes, unless `ending` becomes true. The bytes that had
  // to be fetched.
  Result<uint64_t> fetch_run(BlockRun run, const std::atomic<bool>& ending) const;

  // Takes off `run` what one request brings. REQUIRES: run.count > 0.
  static BlockRun take_request(BlockRun& run);

  // What one request to the remote source brings at most.
  static constexpr unsigned kMostBlocks = 16;

 private:
  Result<size_t> read_block(uint64_t offset, MutableByteSpan out) const;
  Result<std::shared_ptr<const Flights::Buffer>> fly(Flights::Own& own) const;
  void note(uint64_t offset, uint64_t length) const;

  std::shared_ptr<const Source> remote_;
  CacheObject object_;
  Shared shared_;
  std::shared_ptr<BootRecord> record_;
  mutable std::mutex sequential_mutex_;
  mutable SequentialReads sequential_;
};

}  // namespace underlay
