#include "formats/disk.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace underlay {
namespace {

// What the file system knows to be a hole reads as zeros.
void look_for_hole(Extent& extent) {
  const SourceRun run = extent.source->run_at(extent.source_offset, extent.length);
  extent.length = run.length;
  if (run.hole) extent.kind = Extent::Kind::kZero;
}

}  // namespace

bool ZeroRuns::add(uint64_t offset, uint64_t length) {
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
      caches_(caches),
      start_(start),
      size_(round_up(unpadded_size(), kSectorBytes).value_or(unpadded_size())) {
  for (size_t i = 0; i < layers_.size(); ++i) cluster_owners_.push_back(caches_.new_owner());
}

Result<Extent> Disk::map(uint64_t offset, uint64_t length, MapFor purpose) const {
  assert(length > 0 && range_within(offset, length, size_));
  offset += start_;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const uint64_t size = layers_[i].reader->size();
    // Behind the end of the top image is padding; a parent may be shorter than its child.
    if (offset >= size) break;
    length = std::min(length, size - offset);
    Extent extent = TRY(layers_[i].reader->map(offset, length, purpose));
    assert(extent.length > 0 && extent.length <= length);
    if (extent.kind != Extent::Kind::kParent) {
      extent.depth = static_cast<uint16_t>(i + 1);
      // Only block status pays for looking.
      if (purpose == MapFor::kStatus && extent.kind == Extent::Kind::kData) look_for_hole(extent);
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
        break;
      case Extent::Kind::kCompressed:
        copy_unpacked(*TRY(unpacked(extent)), extent, offset + done, part);
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

void Disk::copy_unpacked(const BlockCache::Bytes& cluster, const Extent& extent, uint64_t offset,
                         MutableByteSpan out) const {
  const uint64_t skip = start_ + offset - extent.cluster_start;
  std::memcpy(out.data(), cluster.data() + skip, out.size());
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
      if (got < part.size()) return done + got;
    } else {
      const BlockCache::Handle cluster = caches_.clusters.find(cluster_key(*extent));
      if (!cluster) return done;
      copy_unpacked(*cluster, *extent, offset + done, part);
    }
    done += part.size();
  }
  return done;
}

Result<BlockCache::Handle> Disk::unpacked(const Extent& extent) const {
  return caches_.clusters.get(
      cluster_key(extent), extent.cluster_length, [&](MutableByteSpan cluster) {
        return layers_[extent.depth - 1u].reader->load_cluster(extent, cluster);
      });
}

Result<void> Disk::prefetch(uint64_t offset, uint64_t length) const {
  while (length > 0) {
    const Extent extent = TRY(map(offset, length, MapFor::kRead));
    if (extent.kind == Extent::Kind::kData) {
      extent.source->prefetch(extent.source_offset, extent.length);
    } else if (extent.kind == Extent::Kind::kCompressed) {
      TRY(unpacked(extent));
    }
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

const Source* Disk::find_replaced() const {
  for (const Layer& layer : layers_) {
    for (const Source* source : layer.reader->sources()) {
      if (source->was_replaced()) return source;
    }
  }
  return nullptr;
}

}  // namespace underlay
