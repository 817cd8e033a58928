#include "formats/vhdx/vhdx_log.h"

#include <algorithm>
#include <cassert>

#include "formats/crc32c.h"

namespace underlay::vhdx {
namespace {

constexpr uint64_t kSectorBytes = Overlay::kSectorBytes;
constexpr size_t kEntryHeaderBytes = 64;
constexpr size_t kDescriptorBytes = 32;
constexpr size_t kChecksumAt = 4;
constexpr std::string_view kEntrySignature = "loge";
constexpr std::string_view kZeroSignature = "zero";
constexpr std::string_view kDescSignature = "desc";
constexpr std::string_view kDataSignature = "data";
constexpr uint64_t kMaxFileBytes = uint64_t{1} << 62;

struct Entry {
  uint32_t length = 0;
  uint32_t tail = 0;
  uint64_t sequence_number = 0;  // 0: no whole entry begins here
  uint32_t descriptors = 0;
  uint64_t flushed_file_offset = 0;
  uint64_t last_file_offset = 0;

  // The bytes of the header and the descriptors, in whole sectors.
  uint64_t descriptor_bytes() const {
    const uint64_t bytes = kEntryHeaderBytes + uint64_t{descriptors} * kDescriptorBytes;
    return div_round_up(bytes, kSectorBytes) * kSectorBytes;
  }
};

// The entries of one log.
class Log {
 public:
  Log(ByteSpan log, const Guid& guid)
      : log_(log),
        guid_(guid),
        checksum_budget_(log.size() * kMaxChecksumPasses),
        entries_(log.size() / kSectorBytes) {}

  // Examines all places where an entry may begin.
  Result<void> parse() {
    for (size_t i = 0; i < entries_.size(); ++i) entries_[i] = TRY(parse_entry(i * kSectorBytes));
    return {};
  }

  // The offsets in the log of the active sequence's entries, from the tail to the head.
  Result<std::vector<uint64_t>> active_sequence() const;

  const Entry& entry(uint64_t at) const { return entries_[at / kSectorBytes]; }
  Result<void> replay_entry(uint64_t at, Replay& replay, const FileRange& log_place) const;

 private:
  uint64_t wrapped(uint64_t at) const { return at % log_.size(); }
  ByteSpan sector(uint64_t at) const { return log_.subspan(wrapped(at), kSectorBytes); }
  ByteSpan descriptor_bytes(uint64_t at, uint32_t number) const {
    const uint64_t begin = at + kEntryHeaderBytes + uint64_t{number} * kDescriptorBytes;
    return log_.subspan(wrapped(begin), kDescriptorBytes);
  }
  // Where the entry goes on that follows the one at `at` in a sequence; nullopt: there is none.
  std::optional<uint64_t> next(uint64_t at) const {
    const uint64_t behind = wrapped(at + entry(at).length);
    const uint64_t number = entry(behind).sequence_number;
    if (number == 0 || number != entry(at).sequence_number + 1) return std::nullopt;
    return behind;
  }
  Result<Entry> parse_entry(uint64_t at);
  bool descriptors_hold(uint64_t at, const Entry& entry) const;
  uint32_t checksum_of(uint64_t at, uint32_t length) const;

  ByteSpan log_;
  Guid guid_;
  uint64_t checksum_budget_;
  std::vector<Entry> entries_;  // by sector of the log
};

// Are the descriptors and data sectors of the entry its own (2.3.1)? Cheap beside the checksum.
bool Log::descriptors_hold(uint64_t at, const Entry& entry) const {
  uint64_t data_at = at + entry.descriptor_bytes();
  const uint64_t end = at + entry.length;
  for (uint32_t i = 0; i < entry.descriptors; ++i) {
    const ByteSpan bytes = descriptor_bytes(at, i);
    if (load_le<uint64_t>(bytes, 24) != entry.sequence_number ||
        !is_aligned(load_le<uint64_t>(bytes, 16), kSectorBytes)) {
      return false;
    }
    const std::string_view signature = as_text(bytes.first(4));
    if (signature == kZeroSignature && is_aligned(load_le<uint64_t>(bytes, 8), kSectorBytes)) {
      continue;
    }
    if (signature != kDescSignature || data_at == end) return false;
    const ByteSpan data = sector(data_at);
    const uint64_t sequence =
        uint64_t{load_le<uint32_t>(data, 4)} << 32 | load_le<uint32_t>(data, kSectorBytes - 4);
    if (as_text(data.first(4)) != kDataSignature || sequence != entry.sequence_number) return false;
    data_at += kSectorBytes;
  }
  return true;
}

uint32_t Log::checksum_of(uint64_t at, uint32_t length) const {
  Crc32c crc;
  const ByteSpan first = log_.subspan(at, std::min<size_t>(length, log_.size() - at));
  crc.add(first.first(kChecksumAt));
  crc.add_zeros(4);
  crc.add(first.subspan(kChecksumAt + 4));
  crc.add(log_.first(length - first.size()));
  return crc.value();
}

// The entry at `at`; without a sequence number when none is whole there.
Result<Entry> Log::parse_entry(uint64_t at) {
  const ByteSpan bytes = sector(at);
  const Entry entry{.length = load_le<uint32_t>(bytes, 8),
                    .tail = load_le<uint32_t>(bytes, 12),
                    .sequence_number = load_le<uint64_t>(bytes, 16),
                    .descriptors = load_le<uint32_t>(bytes, 24),
                    .flushed_file_offset = load_le<uint64_t>(bytes, 48),
                    .last_file_offset = load_le<uint64_t>(bytes, 56)};
  if (as_text(bytes.first(4)) != kEntrySignature || guid_at(bytes, 32) != guid_ ||
      entry.sequence_number == 0 || entry.length == 0 || entry.length > log_.size() ||
      !is_aligned(entry.length, kSectorBytes) || entry.tail >= log_.size() ||
      !is_aligned(entry.tail, kSectorBytes) || entry.descriptor_bytes() > entry.length ||
      !descriptors_hold(at, entry)) {
    return Entry{};
  }
  if (entry.length > checksum_budget_) {
    return fail(ErrorKind::kLimit,
                "its log has so many entries over each other that checking them takes more than "
                "{} times its {} bytes: it is damaged",
                kMaxChecksumPasses, log_.size());
  }
  checksum_budget_ -= entry.length;
  if (checksum_of(at, entry.length) != load_le<uint32_t>(bytes, kChecksumAt)) return Entry{};
  return entry;
}

// 2.3.3: of the sequences whose head's Tail lies in them, the one with the newest head. What a Tail
// leads to is found for all entries at once, from the newest to the oldest.
Result<std::vector<uint64_t>> Log::active_sequence() const {
  std::vector<uint64_t> whole;
  for (uint64_t at = 0; at < log_.size(); at += kSectorBytes) {
    if (entry(at).sequence_number != 0) whole.push_back(at);
  }
  std::sort(whole.begin(), whole.end(), [&](uint64_t a, uint64_t b) {
    const uint64_t first = entry(a).sequence_number;
    const uint64_t second = entry(b).sequence_number;
    return first != second ? first > second : a < b;
  });
  std::vector<uint64_t> head_of(entries_.size());
  std::vector<uint64_t> heads;
  for (const uint64_t at : whole) {
    const auto behind = next(at);
    head_of[at / kSectorBytes] = behind ? head_of[*behind / kSectorBytes] : at;
    if (!behind) heads.push_back(at);
  }
  for (const uint64_t head : heads) {
    const uint64_t tail = entry(head).tail;
    if (entry(tail).sequence_number == 0 || head_of[tail / kSectorBytes] != head) continue;
    std::vector<uint64_t> sequence = {tail};
    uint64_t length = entry(tail).length;
    while (sequence.back() != head) {
      sequence.push_back(*next(sequence.back()));
      length += entry(sequence.back()).length;
    }
    if (length <= log_.size()) return sequence;
    return fail(ErrorKind::kMalformed,
                "the {} entries of its log's active sequence have {} bytes, but the log has {}: "
                "the image is damaged",
                sequence.size(), length, log_.size());
  }
  return fail(ErrorKind::kMalformed,
              "its log must be replayed (LogGuid {}), but holds no whole sequence of entries: the "
              "image is damaged, or was copied while it was written",
              to_string(guid_));
}

Result<void> check_target(const FileRange& target, uint64_t sequence_number,
                          const FileRange& log_place) {
  constexpr FileRange kBeforeTables{.offset = 0, .length = kRegionTablesAt[0]};
  if (target.offset > kMaxFileBytes || target.length > kMaxFileBytes) {
    return fail(ErrorKind::kMalformed, "log entry {} writes {} bytes at byte {}, beyond any file",
                sequence_number, target.length, target.offset);
  }
  if (!target.overlaps(kBeforeTables) && !target.overlaps(log_place)) return {};
  return fail(
      ErrorKind::kMalformed,
      "log entry {} writes {} bytes at byte {}, where the headers or the log lie: the image "
      "is damaged",
      sequence_number, target.length, target.offset);
}

Result<void> Log::replay_entry(uint64_t at, Replay& replay, const FileRange& log_place) const {
  const Entry& header = entry(at);
  uint64_t data_at = at + header.descriptor_bytes();
  for (uint32_t i = 0; i < header.descriptors; ++i) {
    const ByteSpan descriptor = descriptor_bytes(at, i);
    const bool zeros = as_text(descriptor.first(4)) == kZeroSignature;
    const FileRange target{.offset = load_le<uint64_t>(descriptor, 16),
                           .length = zeros ? load_le<uint64_t>(descriptor, 8) : kSectorBytes};
    TRY(check_target(target, header.sequence_number, log_place));
    if (zeros) {
      replay.overlay.put_zeros(target.offset, target.length);
      continue;
    }
    const ByteSpan stored = sector(data_at);
    data_at += kSectorBytes;
    std::array<std::byte, kSectorBytes> bytes;
    std::copy(stored.begin(), stored.end(), bytes.begin());
    std::copy_n(descriptor.begin() + 8, 8, bytes.begin());
    std::copy_n(descriptor.begin() + 4, 4, bytes.end() - 4);
    replay.overlay.put_sector(target.offset, bytes);
  }
  ++replay.entries;
  replay.descriptors += header.descriptors;
  return {};
}

}  // namespace

Result<Replay> replay_log(ByteSpan bytes, const Header& header, uint64_t file_size) {
  assert(is_aligned(bytes.size(), kSectorBytes) && bytes.size() <= kMaxLogBytes);
  Log log(bytes, header.log_guid);
  TRY(log.parse());
  const std::vector<uint64_t> sequence = TRY(log.active_sequence());
  const Entry& head = log.entry(sequence.back());
  if (file_size < head.flushed_file_offset) {
    return fail(ErrorKind::kTruncated,
                "the file has {} bytes, but had {} (FlushedFileOffset) when log entry {} was "
                "written: it is truncated",
                file_size, head.flushed_file_offset, head.sequence_number);
  }
  if (head.last_file_offset > kMaxFileBytes) {
    return fail(ErrorKind::kMalformed, "log entry {} has LastFileOffset {}, beyond any file",
                head.sequence_number, head.last_file_offset);
  }
  uint64_t descriptors = 0;
  for (const uint64_t at : sequence) descriptors += log.entry(at).descriptors;
  if (descriptors > kMaxReplayedDescriptors) {
    return fail(ErrorKind::kLimit, "its log has {} writes to be replayed, more than {}",
                descriptors, kMaxReplayedDescriptors);
  }
  Replay replay;
  for (const uint64_t at : sequence) TRY(log.replay_entry(at, replay, header.log));
  replay.overlay.extend_to(head.last_file_offset);
  return replay;
}

}  // namespace underlay::vhdx
