#include "formats/vmdk/vmdk_unused.h"

#include <algorithm>

#include "formats/vmdk/vmdk_layout.h"

namespace underlay {
namespace {

constexpr uint64_t kReadSectors = 128;  // at once

Failure describe_run(const VmdkSectorMap::Run& run, uint64_t grains) {
  return fail(ErrorKind::kMalformed,
              "sectors {} to {} ({} {}) belong to nothing: they only take space", run.first,
              run.end - 1, grains, grains == 1 ? "grain" : "grains");
}

}  // namespace

Finding vmdk_finding(Finding::Kind kind, std::string_view code, const Source& source, bool is_image,
                     Error error, uint64_t offset) {
  error.file = is_image ? "" : source.name();
  error.offset.reset();
  return {.kind = kind, .code = std::string(code), .message = error.to_string(), .offset = offset};
}

VmdkUnused::VmdkUnused(const Source& source, const VmdkSparseFile& file, CheckReport& report,
                       bool is_image)
    : source_(source), geometry_(file.geometry), report_(report), is_image_(is_image) {
  const uint64_t sectors = source.size() / kVmdkSectorBytes;
  switch (geometry_.entries) {
    case VmdkGeometry::Entries::kHosted:
      all_ = {.first = geometry_.grains_from, .end = sectors};
      break;
    case VmdkGeometry::Entries::kCowd:
      all_ = {.first = geometry_.grains_from, .end = std::min(file.free_sector, sectors)};
      break;
    case VmdkGeometry::Entries::kSeSparse:
      break;
  }
}

Result<void> VmdkUnused::look_in(const VmdkSectorMap& map, const KeepGoing& keep_going) {
  const uint64_t end = std::min(map.end(), all_.end);
  const bool goes_on = map.end() < all_.end;
  uint64_t at = std::max(map.first(), all_.first);
  while (at < end) {
    auto run = map.unmarked(at);
    if (!run || run->first >= end) run = Run{.first = end, .end = end};
    if (pending_ && run->first > at) {
      TRY(look_at({.first = *pending_, .end = at}, keep_going));
      pending_.reset();
    }
    run->end = std::min(run->end, end);
    const uint64_t first = pending_.value_or(run->first);
    pending_.reset();
    if (run->end == end && goes_on && run->first < end) {
      pending_ = first;
    } else if (first < run->end) {
      TRY(look_at({.first = first, .end = run->end}, keep_going));
    }
    at = run->end;
  }
  return {};
}

// Holes of the file system take no space.
Result<void> VmdkUnused::look_at(Run run, const KeepGoing& keep_going) {
  while (run.first < run.end) {
    TRY(keep_going());
    const SourceRun found =
        source_.run_at(run.first * kVmdkSectorBytes, (run.end - run.first) * kVmdkSectorBytes);
    const uint64_t sectors = std::max<uint64_t>(found.length / kVmdkSectorBytes, 1);
    const uint64_t end = std::min(run.first + sectors, run.end);
    if (!found.hole) look_at_data({.first = run.first, .end = end});
    run.first = end;
  }
  return {};
}

void VmdkUnused::look_at_data(Run run) {
  const uint64_t sectors = run.end - run.first;
  const uint64_t grains =
      geometry_.compressed ? count_streams(run) : sectors / geometry_.grain_size;
  if (grains == 0) return;
  const auto leak = [&] {
    return vmdk_finding(Finding::Kind::kLeak, "leak", source_, is_image_,
                        describe_run(run, grains).value(), run.first * kVmdkSectorBytes);
  };
  report_.add(Finding::Kind::kLeak, leak, grains);
}

Result<std::vector<std::byte>> VmdkUnused::read(uint64_t sector, uint64_t end) const {
  std::vector<std::byte> bytes(
      static_cast<size_t>(std::min(kReadSectors, end - sector) * kVmdkSectorBytes));
  TRY(source_.read_at(sector * kVmdkSectorBytes, bytes));
  return bytes;
}

// Grains behind markers that no table names. Between them lie markers of tables and of the end, and
// zeros. From the first sector on that is none of these, the rest counts as one.
uint64_t VmdkUnused::count_streams(Run run) {
  uint64_t grains = 0;
  while (run.first < run.end) {
    const auto bytes = read(run.first, run.end);
    if (!bytes) {
      report_.add(vmdk_finding(Finding::Kind::kFailure, "unreadable", source_, is_image_,
                               bytes.error(), run.first * kVmdkSectorBytes));
      return grains;
    }
    const uint64_t sectors = bytes->size() / kVmdkSectorBytes;
    uint64_t at = 0;
    while (at < sectors) {
      const ByteSpan sector =
          ByteSpan(*bytes).subspan(static_cast<size_t>(at * kVmdkSectorBytes), kVmdkSectorBytes);
      const auto value = load_le<uint64_t>(sector, 0);
      const auto size = load_le<uint32_t>(sector, 8);
      const auto type = load_le<uint32_t>(sector, 12);
      if (size == 0 && type <= kVmdkLastMarkerType) {
        // A marker, what it stands for, of which some is used; or zeros.
        at += 1 + (value <= run.end - run.first ? value : 0);
        continue;
      }
      ++grains;
      const bool is_grain = value < geometry_.capacity && value % geometry_.grain_size == 0 &&
                            size <= vmdk_max_stored_bytes(geometry_.grain_size);
      if (!is_grain) return grains;
      at += div_round_up(kVmdkGrainMarkerBytes + size, kVmdkSectorBytes);
    }
    run.first += at;
  }
  return grains;
}

}  // namespace underlay
