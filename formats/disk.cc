#include "formats/disk.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstring>

namespace underlay {
namespace {

void count_unpacked(uint64_t bytes, std::chrono::nanoseconds time, UnpackCounts& counts) {
  counts.clusters.fetch_add(1, std::memory_order_relaxed);
  counts.bytes.fetch_add(bytes, std::memory_order_relaxed);
  counts.nanoseconds.fetch_add(static_cast<uint64_t>(time.count()), std::memory_order_relaxed);
}

// What the file system knows to be a hole reads as zeros.
void look_for_hole(Extent& extent) {
  const SourceRun run = extent.source->run_at(extent.source_offset, extent.length);
  extent.length = run.length;
  if (!run.hole) return;
  extent.kind = Extent::Kind::kZero;
  extent.reserved = run.reserved;
}

// How much of a disk one remembered run serves. A cluster is mostly one run, and often many of them
// are: few slots, which stay in the processor's cache, then serve the whole disk.
constexpr uint64_t kMinUnit = 4 << 10;
constexpr uint64_t kMaxUnit = 64 << 10;
constexpr uint64_t kUnitsInLarge = 16;
// To tell the numbers of large units from those of the others.
constexpr uint64_t kLarge = uint64_t{1} << 63;
// Runs that are passed on the way from the start of a unit to the one that is wanted.
constexpr int kMaxSteps = 4;

uint64_t unit_of(const std::vector<Layer>& layers) {
  uint64_t smallest = layers.size() == 1 ? layers.front().reader->cluster_size() : kMaxUnit;
  if (smallest == 0) return 0;  // one piece: asking it costs nothing
  for (const Layer& layer : layers) {
    const uint64_t size = layer.reader->cluster_size();
    if (size > 0) smallest = std::min(smallest, size);
  }
  return std::clamp(smallest, kMinUnit, kMaxUnit);
}

// REQUIRES: equal sizes.
void copy_bytes(ByteSpan from, MutableByteSpan to) {
  std::memcpy(to.data(), from.data(), to.size());
}

// The part of the run from `offset` on, at most `length` bytes.
Extent part_of(const ExtentCache::Run& run, uint64_t offset, uint64_t length) {
  Extent part = run.extent;
  const uint64_t skip = offset - run.start;
  part.length = std::min(part.length - skip, length);
  if (part.kind == Extent::Kind::kData) part.source_offset += skip;
  return part;
}

}  // namespace

bool ZeroRuns::add(uint64_t offset, uint64_t length) {
  offset += base_;
  if (count_ > 0 && runs_[count_ - 1].offset + runs_[count_ - 1].length == offset) {
    runs_[count_ - 1].length += length;
    return true;
  }
  if (length < kMinLength || count_ == kMaxRuns) return false;
  runs_[count_++] = Run{.offset = offset, .length = length};
  return true;
}

Disk::Disk(std::vector<Layer> layers, Caches& caches, uint64_t start)
    : layers_(std::move(layers)),
      layer_bytes_(layers_.size()),
      caches_(caches),
      start_(start),
      size_(round_up(unpadded_size(), kSectorBytes).value_or(unpadded_size())),
      extent_owner_(caches_.new_owner()),
      unit_(unit_of(layers_)) {
  for (size_t i = 0; i < layers_.size(); ++i) cluster_owners_.push_back(caches_.new_owner());
}

Result<Extent> Disk::map(uint64_t offset, uint64_t length, MapFor purpose) const {
  assert(length > 0 && range_within(offset, length, size_));
  offset += start_;
  if (purpose == MapFor::kStatus) {
    Extent extent = TRY(resolve(offset, length, purpose));
    // Only block status pays for looking.
    if (extent.kind == Extent::Kind::kData) look_for_hole(extent);
    return extent;
  }
  // Long reads are worth more as few long runs.
  if (length > unit_) return resolve(offset, length, purpose);
  auto run = caches_.extents.find(extent_owner_, large_unit(offset), offset);
  if (!run) run = caches_.extents.find(extent_owner_, offset / unit_, offset);
  if (run) return part_of(*run, offset, length);
  return map_first(offset, length, purpose);
}

// Maps as much of the unit around `offset` as one run holds, and remembers it.
Result<Extent> Disk::map_first(uint64_t offset, uint64_t length, MapFor purpose) const {
  if (const auto run = run_around(offset, unit_ * kUnitsInLarge, purpose);
      run && run->extent.length > 2 * unit_) {
    caches_.extents.put(extent_owner_, large_unit(offset), *run);
    return part_of(*run, offset, length);
  }
  if (const auto run = run_around(offset, unit_, purpose)) {
    caches_.extents.put(extent_owner_, offset / unit_, *run);
    return part_of(*run, offset, length);
  }
  return resolve(offset, length, purpose);
}

uint64_t Disk::large_unit(uint64_t offset) const { return kLarge | offset / unit_ / kUnitsInLarge; }

// The run that holds `offset`, within the `size` bytes around it that begin at a multiple of
// `size`. nullopt when it is not found in a few steps, or on any failure: what is wrong elsewhere
// does not concern this read.
std::optional<ExtentCache::Run> Disk::run_around(uint64_t offset, uint64_t size,
                                                 MapFor purpose) const {
  uint64_t at = std::max(offset - offset % size, start_);
  const uint64_t end = offset + std::min(size - offset % size, start_ + size_ - offset);
  for (int step = 0; step < kMaxSteps; ++step) {
    const auto extent = resolve(at, end - at, purpose);
    if (!extent) return std::nullopt;
    if (offset - at < extent->length) return ExtentCache::Run{.start = at, .extent = *extent};
    at += extent->length;
  }
  return std::nullopt;
}

// As map(), but `offset` is the images', and nothing is remembered.
Result<Extent> Disk::resolve(uint64_t offset, uint64_t length, MapFor purpose) const {
  for (size_t i = 0; i < layers_.size(); ++i) {
    const uint64_t size = layers_[i].reader->size();
    // Behind the end of the top image is padding; a parent may be shorter than its child.
    if (offset >= size) break;
    length = std::min(length, size - offset);
    Extent extent = TRY(layers_[i].reader->map(offset, length, purpose));
    assert(extent.length > 0 && extent.length <= length);
    if (extent.kind == Extent::Kind::kData) {
      // A part of a file is served from the file, whose descriptor and page cache can be used.
      const SourcePlace place = extent.source->place_of(extent.source_offset);
      extent.source = place.source;
      extent.source_offset = place.offset;
    }
    if (extent.kind != Extent::Kind::kParent) {
      extent.depth = static_cast<uint16_t>(i + 1);
      return extent;
    }
    length = extent.length;
  }
  Extent nothing;
  nothing.kind = Extent::Kind::kZero;
  nothing.length = length;
  return nothing;
}

Result<void> Disk::read(uint64_t offset, MutableByteSpan out, ZeroRuns* zeros) const {
  uint64_t done = 0;
  while (done < out.size()) {
    const Extent extent = TRY(map(offset + done, out.size() - done, MapFor::kRead));
    const MutableByteSpan part = out.subspan(done, static_cast<size_t>(extent.length));
    switch (extent.kind) {
      case Extent::Kind::kZero:
        if (zeros == nullptr || !zeros->add(done, part.size())) {
          std::memset(part.data(), 0, part.size());
        }
        break;
      case Extent::Kind::kData:
        TRY(extent.source->read_at(extent.source_offset, part));
        note_read(extent, part.size());
        break;
      case Extent::Kind::kCompressed:
      case Extent::Kind::kCopied:
        copy_bytes(part_of_cluster(*TRY(unpacked(extent)), extent, offset + done), part);
        note_read(extent, part.size());
        break;
      case Extent::Kind::kParent:
        assert(false && "map() resolves parents");
        return fail(ErrorKind::kIo, "unresolved extent");
    }
    done += extent.length;
  }
  return {};
}

BlockCache::Key Disk::cluster_key(const Extent& extent) const {
  return {.owner = cluster_owners_[extent.depth - 1u], .offset = extent.cluster_start};
}

ByteSpan Disk::part_of_cluster(const BlockCache::Bytes& cluster, const Extent& extent,
                               uint64_t offset) const {
  const uint64_t skip = start_ + offset - extent.cluster_start;
  assert(range_within(skip, extent.length, cluster.size()));
  return {cluster.data() + skip, static_cast<size_t>(extent.length)};
}

size_t Disk::read_from_memory(uint64_t offset, MutableByteSpan out, ZeroRuns* zeros) const {
  size_t done = 0;
  while (done < out.size()) {
    const auto extent = map(offset + done, out.size() - done, MapFor::kReadNow);
    if (!extent) return done;
    const MutableByteSpan part = out.subspan(done, static_cast<size_t>(extent->length));
    if (extent->kind == Extent::Kind::kZero) {
      if (zeros == nullptr || !zeros->add(done, part.size())) {
        std::memset(part.data(), 0, part.size());
      }
    } else if (extent->kind == Extent::Kind::kData) {
      const size_t got = extent->source->read_cached(extent->source_offset, part);
      note_read(*extent, got);
      if (got < part.size()) return done + got;
    } else {
      const BlockCache::Handle cluster = find_unpacked(*extent);
      if (!cluster) return done;
      copy_bytes(part_of_cluster(*cluster, *extent, offset + done), part);
      note_read(*extent, part.size());
    }
    done += part.size();
  }
  return done;
}

BlockCache::Handle Disk::find_unpacked(const Extent& extent) const {
  return caches_.clusters.find(cluster_key(extent));
}

Result<BlockCache::Handle> Disk::unpacked(const Extent& extent) const {
  return caches_.clusters.get(
      cluster_key(extent), extent.cluster_length, [&](MutableByteSpan cluster) {
        const auto begun = std::chrono::steady_clock::now();
        auto loaded = layers_[extent.depth - 1u].reader->load_cluster(extent, cluster);
        count_unpacked(cluster.size(), std::chrono::steady_clock::now() - begun, caches_.unpacking);
        return loaded;
      });
}

Result<void> Disk::prefetch(uint64_t offset, uint64_t length) const {
  while (length > 0) {
    const Extent extent = TRY(map(offset, length, MapFor::kRead));
    if (extent.kind == Extent::Kind::kData) {
      extent.source->prefetch(extent.source_offset, extent.length);
    } else if (extent.is_loaded()) {
      TRY(unpacked(extent));
    }
    offset += extent.length;
    length -= extent.length;
  }
  return {};
}

Result<void> Disk::unpack(uint64_t offset, uint64_t length) const {
  while (length > 0) {
    const Extent extent = TRY(map(offset, length, MapFor::kRead));
    if (extent.is_loaded()) TRY(unpacked(extent));
    offset += extent.length;
    length -= extent.length;
  }
  return {};
}

Result<void> Disk::check_unchanged() const {
  for (const Layer& layer : layers_) {
    for (const Source* source : layer.reader->sources()) TRY(source->check_unchanged());
  }
  return {};
}

void Disk::look_again() const {
  for (const Layer& layer : layers_) {
    for (const Source* source : layer.reader->sources()) source->file().look_again();
  }
}

bool Disk::is_far() const {
  return std::ranges::any_of(layers_, [](const Layer& layer) {
    return std::ranges::any_of(layer.reader->sources(),
                               [](const Source* source) { return source->file().is_far(); });
  });
}

const Source* Disk::find_replaced() const {
  for (const Layer& layer : layers_) {
    for (const Source* source : layer.reader->sources()) {
      if (source->was_replaced()) return source;
    }
  }
  return nullptr;
}

}  // namespace underlay
