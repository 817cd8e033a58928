// A table of an image, read from end to end, piece by piece: memory does not grow with it.
#pragma once

#include <functional>

#include "formats/file_range.h"
#include "formats/inspection/check_report.h"
#include "io/source.h"

namespace underlay {

// A piece of a table: its first byte in the file, and its bytes.
using UsePiece = std::function<Result<void>(uint64_t at, ByteSpan bytes)>;

// Calls `use` for each piece of `table`: kTablePieceBytes of it, fewer in the last one. Fails when
// a piece cannot be read, or as `use`. REQUIRES: the table lies within the file.
Result<void> for_each_piece(const Source& source, const FileRange& table, const UsePiece& use);

// The same, but a piece that cannot be read is told in `report`, unless that is null, and left out.
Result<void> for_each_readable_piece(const Source& source, const FileRange& table,
                                     CheckReport* report, const UsePiece& use);

// Calls use(index, at, word) for each big-endian word of 8 bytes of `table`, which begins at byte
// `at` of the file, as far as the file goes. Fails when they cannot be read, or as `use`.
using UseWord = std::function<Result<void>(uint64_t index, uint64_t at, uint64_t word)>;
Result<void> for_each_word(const Source& source, const FileRange& table, const UseWord& use);

inline constexpr uint64_t kTablePieceBytes = 1 << 20;

}  // namespace underlay
