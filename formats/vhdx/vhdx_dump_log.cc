#include "formats/vhdx/vhdx_dump_log.h"

#include <algorithm>
#include <array>

#include "formats/inspection/structure_dump.h"

namespace underlay::vhdx {
namespace {

constexpr uint64_t kSectorBytes = 4096;
constexpr uint64_t kEntryHeaderBytes = 64;
constexpr uint64_t kDescriptorBytes = 32;

class LogDump {
 public:
  LogDump(const Source& source, const Header& header, DumpSink& sink)
      : source_(source), header_(header), sink_(sink) {}

  Result<void> run() {
    TRY(sink_.begin("log", header_.log.offset, header_.log.length));
    const uint64_t end = std::min(source_.size(), header_.log.offset + header_.log.length);
    for (uint64_t at = header_.log.offset; range_within(at, kSectorBytes, end);
         at += kSectorBytes) {
      TRY(source_.read_at(at, sector_));
      if (as_text(ByteSpan(sector_).first(4)) == "loge") TRY(dump_entry(at, end));
    }
    return {};
  }

 private:
  Result<void> dump_entry(uint64_t at, uint64_t end) {
    const auto count = load_le<uint32_t>(sector_, 24);
    const bool is_current = guid_at(sector_, 32) == header_.log_guid;
    StructureDump dump(sink_, "log entry", at, ByteSpan(sector_).first(kEntryHeaderBytes),
                       ByteOrder::kLittle);
    dump.text("Signature", 0, 4);
    dump.number<uint32_t>("Checksum", 4);
    dump.number<uint32_t>("EntryLength", 8);
    dump.number<uint32_t>("Tail", 12);
    dump.number<uint64_t>("SequenceNumber", 16);
    dump.number<uint32_t>("DescriptorCount", 24);
    dump.guid("LogGuid", 32, is_current ? "the header's" : "of another session");
    dump.number<uint64_t>("FlushedFileOffset", 48);
    dump.number<uint64_t>("LastFileOffset", 56);
    TRY(dump.done());
    return dump_descriptors(at, count, end);
  }

  // Those that lie behind the header; an entry may go on at the log's start.
  Result<void> dump_descriptors(uint64_t entry, uint32_t count, uint64_t end) {
    std::array<std::byte, kDescriptorBytes> bytes;
    for (uint32_t i = 0; i < count; ++i) {
      uint64_t at = entry + kEntryHeaderBytes + i * kDescriptorBytes;
      if (at >= end) at = at - end + header_.log.offset;
      if (!range_within(at, kDescriptorBytes, end)) return {};
      TRY(source_.read_at(at, bytes));
      const std::string_view signature = as_text(ByteSpan(bytes).first(4));
      if (signature != "desc" && signature != "zero") return {};  // it is not as long as it says
      StructureDump dump(sink_, fmt::format("log descriptor {}", i), at, bytes, ByteOrder::kLittle);
      dump.text("Signature", 0, 4);
      if (signature == "zero") {
        dump.number<uint64_t>("ZeroLength", 8);
      } else {
        dump.number<uint32_t>("TrailingBytes", 4);
        dump.number<uint64_t>("LeadingBytes", 8);
      }
      dump.number<uint64_t>("FileOffset", 16);
      dump.number<uint64_t>("SequenceNumber", 24);
      TRY(dump.done());
    }
    return {};
  }

  const Source& source_;
  const Header& header_;
  DumpSink& sink_;
  std::array<std::byte, kSectorBytes> sector_{};
};

}  // namespace

Result<void> dump_log(const Source& source, const Header& header, DumpSink& sink) {
  // A log that lies nowhere is none.
  if (header.log.length == 0 || header.log.offset >= source.size()) return {};
  return LogDump(source, header, sink).run();
}

}  // namespace underlay::vhdx
