#include "tests/support/judged_disk.h"

#include <algorithm>
#include <set>
#include <vector>

namespace underlay {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kSector = Disk::kSectorBytes;
constexpr uint64_t kStep = 64 << 10;
constexpr uint64_t kMostAtTheEnds = 8 << 20;  // read of a large disk, at its start and its end
constexpr size_t kMostMessages = 4;
constexpr size_t kMostExtents = 20000;

bool all_zero(ByteSpan bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](std::byte byte) { return byte == std::byte{0}; });
}

class Judge {
 public:
  Judge(const Disk& disk, ByteSpan truth) : disk_(disk), truth_(truth) {}

  Json run() {
    const uint64_t size = disk_.size();
    const uint64_t front = std::min(size, std::max<uint64_t>(truth_.size(), kMostAtTheEnds));
    read_all(0, front);
    for (uint64_t at = kStep; at < size / 2; at *= 2) {
      if (at >= front) read_all(at, std::min(at + kStep, size));
    }
    const uint64_t tail = size > kMostAtTheEnds ? (size - kMostAtTheEnds) / kSector * kSector : 0;
    read_all(std::max(front, tail), size);
    map_all();
    return {{"size", size},
            {"failed", std::move(failed_)},
            {"differs", std::move(differs_)},
            {"errors", errors_},
            {"broken", broken_}};
  }

 private:
  void read_all(uint64_t from, uint64_t end) {
    for (uint64_t at = from; at < end; at += kStep) {
      const MutableByteSpan part(buffer_.data(), std::min(kStep, end - at));
      if (disk_.read(at, part)) {
        compare(at, part);
        continue;
      }
      for (uint64_t sector = 0; sector < part.size(); sector += kSector) {
        read_sector(at + sector);
      }
    }
  }

  void read_sector(uint64_t at) {
    const MutableByteSpan sector(buffer_.data(), kSector);
    const auto done = disk_.read(at, sector);
    if (done) return compare(at, sector);
    note(errors_, done.error().to_string());
    if (!failed_.empty() &&
        failed_.back()[0].get<uint64_t>() + failed_.back()[1].get<uint64_t>() == at / kSector) {
      failed_.back()[1] = failed_.back()[1].get<uint64_t>() + 1;
    } else {
      failed_.push_back({at / kSector, 1});
    }
  }

  ByteSpan truth_at(uint64_t offset, uint64_t length) const {
    if (offset >= truth_.size()) return {};
    return truth_.subspan(offset, std::min<uint64_t>(length, truth_.size() - offset));
  }

  void compare(uint64_t at, ByteSpan shown) {
    const ByteSpan known = truth_at(at, shown.size());
    if (std::equal(known.begin(), known.end(), shown.begin()) &&
        all_zero(shown.subspan(known.size()))) {
      return;
    }
    for (uint64_t from = 0; from < shown.size(); from += kSector) {
      const ByteSpan sector = shown.subspan(from, kSector);
      const ByteSpan right = truth_at(at + from, kSector);
      if (std::equal(right.begin(), right.end(), sector.begin()) &&
          all_zero(sector.subspan(right.size()))) {
        continue;
      }
      add_difference((at + from) / kSector, all_zero(sector));
    }
  }

  void add_difference(uint64_t sector, bool zero) {
    if (!differs_.empty()) {
      Json& last = differs_.back();
      if (last[0].get<uint64_t>() + last[1].get<uint64_t>() == sector && last[2] == zero) {
        last[1] = last[1].get<uint64_t>() + 1;
        return;
      }
    }
    differs_.push_back({sector, 1, zero});
  }

  void map_all() {
    const uint64_t size = disk_.size();
    size_t extents = 0;
    for (uint64_t at = 0; at < size && extents < kMostExtents; ++extents) {
      const auto extent = disk_.map(at, size - at, MapFor::kStatus);
      if (!extent) {
        note(errors_, extent.error().to_string());
        at += kStep;
        continue;
      }
      if (extent->length == 0 || extent->length > size - at) {
        note(broken_, fmt::format("an extent of {} bytes at {} of {}", extent->length, at, size));
        return;
      }
      judge_extent(at, *extent);
      at += extent->length;
    }
  }

  void judge_extent(uint64_t at, const Extent& extent) {
    if (extent.kind == Extent::Kind::kParent) note(broken_, "a chain maps to a parent");
    if (extent.kind == Extent::Kind::kData &&
        !range_within(extent.source_offset, extent.length, extent.source->size())) {
      note(broken_, fmt::format("data at {} that lies beyond the end of its file", at));
    }
  }

  static void note(std::set<std::string>& lines, std::string line) {
    if (lines.size() < kMostMessages) lines.insert(std::move(line));
  }

  const Disk& disk_;
  const ByteSpan truth_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(kStep);
  Json failed_ = Json::array();
  Json differs_ = Json::array();
  std::set<std::string> errors_;
  std::set<std::string> broken_;
};

}  // namespace

nlohmann::json judge_disk(const Disk& disk, ByteSpan truth) { return Judge(disk, truth).run(); }

}  // namespace underlay
