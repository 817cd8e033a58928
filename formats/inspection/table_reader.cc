#include "formats/inspection/table_reader.h"

#include <algorithm>
#include <vector>

namespace underlay {
namespace {

// `failed` says what becomes of a piece that cannot be read.
template <class Failed>
Result<void> read_pieces(const Source& source, const FileRange& table, const UsePiece& use,
                         const Failed& failed) {
  std::vector<std::byte> piece(
      static_cast<size_t>(std::min<uint64_t>(kTablePieceBytes, table.length)));
  for (uint64_t done = 0; done < table.length; done += kTablePieceBytes) {
    const uint64_t at = table.offset + done;
    const MutableByteSpan bytes = MutableByteSpan(piece).first(
        static_cast<size_t>(std::min<uint64_t>(kTablePieceBytes, table.length - done)));
    const auto read = source.read_at(at, bytes);
    TRY(read ? use(at, bytes) : failed(read.error()));
  }
  return {};
}

}  // namespace

Result<void> for_each_piece(const Source& source, const FileRange& table, const UsePiece& use) {
  return read_pieces(source, table, use,
                     [](const Error& error) -> Result<void> { return Failure(error); });
}

Result<void> for_each_readable_piece(const Source& source, const FileRange& table,
                                     CheckReport* report, const UsePiece& use) {
  return read_pieces(source, table, use, [&](const Error& error) -> Result<void> {
    if (report != nullptr) {
      report->add(finding_of(Finding::Kind::kFailure, "unreadable", error));
    }
    return {};
  });
}

Result<void> for_each_word(const Source& source, const FileRange& table, const UseWord& use) {
  const uint64_t there = source.size() - std::min(table.offset, source.size());
  const FileRange words{.offset = table.offset, .length = std::min(table.length, there) / 8 * 8};
  return for_each_piece(source, words, [&](uint64_t at, ByteSpan bytes) -> Result<void> {
    for (size_t i = 0; i < bytes.size(); i += 8) {
      TRY(use((at - table.offset + i) / 8, at + i, load_be<uint64_t>(bytes, i)));
    }
    return {};
  });
}

}  // namespace underlay
