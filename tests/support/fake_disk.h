// Disks made of stated runs, for tests of what reads disks.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "formats/disk.h"
#include "io/faulty_source.h"
#include "io/memory_source.h"

namespace underlay {

// A run of guest bytes. kData: `fill` is what the source holds there.
struct Piece {
  Extent::Kind kind;
  uint64_t length;
  int fill = 0;
};

// A reader over pieces, whose data lies in a source at the guest offset. A cluster is one
// kCompressed piece.
class FakeReader final : public Reader {
 public:
  explicit FakeReader(std::vector<Piece> pieces) : pieces_(std::move(pieces)) {
    std::vector<std::byte> stored;
    for (const Piece& piece : pieces_) {
      stored.insert(stored.end(), piece.length, static_cast<std::byte>(piece.fill));
    }
    size_ = stored.size();
    source_ = std::make_shared<FaultySource>(std::make_shared<MemorySource>(std::move(stored)));
  }

  uint64_t size() const override { return size_; }
  std::vector<const Source*> sources() const override { return {source_.get()}; }
  FaultySource& faults() const { return *source_; }

  Result<Extent> map(uint64_t offset, uint64_t length, MapFor) const override {
    ++maps;
    CHECK(length > 0);
    CHECK(range_within(offset, length, size_));  // what Reader::map() requires
    if (offset >= map_fails_from) return fail(ErrorKind::kMalformed, "table is damaged");
    length = std::min(length, map_fails_from - offset);
    uint64_t start = 0;
    for (const Piece& piece : pieces_) {
      if (offset >= start + piece.length) {
        start += piece.length;
        continue;
      }
      Extent extent;
      extent.kind = piece.kind;
      extent.length = std::min(length, start + piece.length - offset);
      extent.reserved = piece.kind == Extent::Kind::kZero;
      extent.source = other_source != nullptr ? other_source : source_.get();
      extent.source_offset = piece.kind == Extent::Kind::kCompressed ? start : offset;
      extent.cluster_start = start;
      extent.cluster_length = static_cast<uint32_t>(piece.length);
      return extent;
    }
    return fail(ErrorKind::kIo, "asked past the end");
  }

  Result<void> load_cluster(const Extent& extent, MutableByteSpan out) const override {
    ++loads;
    return source_->read_at(extent.source_offset, out);
  }

  uint64_t cluster_size() const override { return cluster; }

  uint64_t cluster = 0;
  mutable std::atomic<int> maps = 0;
  uint64_t map_fails_from = UINT64_MAX;
  const Source* other_source = nullptr;
  mutable std::atomic<int> loads = 0;

 private:
  std::vector<Piece> pieces_;
  uint64_t size_ = 0;
  std::shared_ptr<FaultySource> source_;
};

// A disk over fake layers, the top one first.
struct Chain {
  explicit Chain(std::vector<std::vector<Piece>> layers, uint64_t start = 0) {
    std::vector<Layer> made;
    for (auto& pieces : layers) {
      auto reader = std::make_unique<FakeReader>(std::move(pieces));
      readers.push_back(reader.get());
      made.push_back({.reader = std::move(reader), .path = "fake"});
    }
    disk = std::make_unique<Disk>(std::move(made), caches, start);
  }
  // The bytes, each as a letter; "error" when the read fails.
  std::string text(uint64_t offset, size_t length, ZeroRuns* zeros = nullptr) const {
    std::string out(length, '#');
    const auto read = disk->read(offset, std::as_writable_bytes(std::span(out)), zeros);
    if (!read) return "error";
    for (char& c : out) c = c == '\0' ? '0' : c;
    return out;
  }

  Caches caches;
  std::vector<FakeReader*> readers;
  std::unique_ptr<Disk> disk;
};

}  // namespace underlay
