// The log of a VHDX ([MS-VHDX] 2.3): changes of metadata that were written here first, and perhaps
// nowhere else. Pure: bytes in, writes out; no I/O. All integers are little-endian.
//
// A ring of entries, each at a multiple of 4 KiB; they may go on at the log's start behind its end.
//
//   entry: descriptor sectors, then a data sector for each data descriptor, 4 KiB each
//     header, 64 bytes (2.3.1.1)            zero descriptor (2.3.1.2)
//      0  4 "loge"                            0  4 "zero"
//      4  4 Checksum of the entry             4  4 reserved
//      8  4 EntryLength                       8  8 ZeroLength
//     12  4 Tail: where in the log the       16  8 FileOffset
//           oldest entry lies that is not    24  8 SequenceNumber of the entry
//           yet where it belongs            data descriptor (2.3.1.3)
//     16  8 SequenceNumber, > 0               0  4 "desc"
//     24  4 DescriptorCount                   4  4 TrailingBytes: the last of the sector
//     28  4 reserved                          8  8 LeadingBytes: the first of the sector
//     32 16 LogGuid of the header            16  8 FileOffset
//     48  8 FlushedFileOffset                24  8 SequenceNumber of the entry
//     56  8 LastFileOffset                  data sector (2.3.1.4)
//     64 .. descriptors, 32 bytes each        0  4 "data"
//                                             4  4 SequenceNumber, upper half
//                                             8 .. 4084 bytes of the sector
//                                          4092  4 SequenceNumber, lower half
#pragma once

#include "formats/vhdx/vhdx_layout.h"
#include "formats/vhdx/vhdx_overlay.h"

namespace underlay::vhdx {

// Budgets of a log that must be replayed. Writers make it 1 MiB, and rarely more.
inline constexpr uint32_t kMaxLogBytes = 64 << 20;
inline constexpr size_t kMaxReplayedDescriptors = 1 << 18;
// How often the log's bytes may be run through the checksum: entries of a sound log do not overlap,
// but for what is left of older ones.
inline constexpr uint64_t kMaxChecksumPasses = 4;

struct Replay {
  Overlay overlay;
  uint64_t entries = 0;
  uint64_t descriptors = 0;
};

// Replays the active sequence (2.3.3) of the log whose bytes are `log`, on a file of `file_size`
// bytes. Fails when there is none, when the file is shorter than the log knows it to be, when an
// entry writes where no log may, or above a budget.
// REQUIRES: log.size() is a multiple of 4 KiB, at most kMaxLogBytes.
Result<Replay> replay_log(ByteSpan log, const Header& header, uint64_t file_size);

}  // namespace underlay::vhdx
