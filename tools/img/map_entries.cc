#include "tools/img/map_entries.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "tools/common/interruption.h"
#include "tools/img/say.h"

namespace underlay::img {
namespace {

// Bytes that no image has end the search in the last one that is long enough, where qemu finds them
// to be zeros.
uint64_t depth_of_absence(const Disk& disk, uint64_t offset) {
  const auto& layers = disk.layers();
  uint64_t depth = 0;
  while (depth + 1 < layers.size() && offset < layers[depth + 1].reader->size()) ++depth;
  return depth;
}

void place(MapEntry& entry, const Extent& extent) {
  const Source& file = extent.source->file();
  entry.filename = file.name();
  if (extent.is_loaded()) return;
  // A file that is compressed as a whole has no place for the bytes as they are.
  if (&file == extent.source) {
    entry.offset = extent.source_offset;
  } else {
    entry.compressed = true;
  }
}

MapEntry entry_of(const Disk& disk, uint64_t start, const Extent& extent) {
  MapEntry entry{.start = start, .length = extent.length};
  entry.present = extent.depth > 0;
  entry.depth = entry.present ? extent.depth - 1u : depth_of_absence(disk, start);
  entry.zero = extent.kind == Extent::Kind::kZero;
  entry.data = !entry.zero;
  entry.compressed = extent.kind == Extent::Kind::kCompressed;
  if (extent.source != nullptr) place(entry, extent);
  return entry;
}

// Does `next` begin where `entry` ends, and is it of the same kind? As qemu-img has it.
bool is_continued(const MapEntry& entry, const MapEntry& next) {
  if (entry.length == 0) return false;
  return entry.depth == next.depth && entry.present == next.present && entry.zero == next.zero &&
         entry.data == next.data && entry.compressed == next.compressed &&
         entry.filename == next.filename && entry.offset.has_value() == next.offset.has_value() &&
         (!entry.offset || *entry.offset + entry.length == *next.offset);
}

}  // namespace

Result<void> each_map_entry(const Disk& disk, uint64_t start, uint64_t end, Progress* progress,
                            const std::function<Result<void>(const MapEntry&)>& sink) {
  MapEntry entry{.start = start};
  if (progress != nullptr) progress->begin(end - start);
  for (uint64_t at = start; at < end;) {
    auto extent = disk.map(at, std::min(end - at, kMapStep), MapFor::kStatus);
    const bool interrupted = extent && is_interrupted();
    if (interrupted) extent = fail_errno(EINTR, "interrupted");
    if (!extent) {
      if (progress != nullptr) progress->end();
      if (interrupted) {
        say_error(fmt::format("interrupted: {} of {} bytes mapped", at - start, end - start));
      }
      if (entry.length > 0) TRY(sink(entry));
      return Failure(std::move(extent).error());
    }
    if (progress != nullptr) progress->add(extent->length);
    const MapEntry next = entry_of(disk, at, *extent);
    at += extent->length;
    if (is_continued(entry, next)) {
      entry.length += next.length;
      continue;
    }
    if (entry.length > 0) TRY(sink(entry));
    entry = next;
  }
  if (progress != nullptr) progress->end();
  return sink(entry);
}

}  // namespace underlay::img
