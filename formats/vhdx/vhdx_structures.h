// The structures of a VHDX, read from its file: headers, log, region tables, metadata. All that can
// be read is; what is wrong is told beside it, so that a reader can refuse the image and a person
// can look into it.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/defect.h"
#include "formats/reader.h"
#include "formats/vhdx/vhdx_layout.h"
#include "formats/vhdx/vhdx_overlay.h"

namespace underlay::vhdx {

struct Structures {
  Header header;                                   // the current one
  std::array<uint64_t, 2> sequence_numbers{};      // of both
  std::shared_ptr<const ReplayedSource> replayed;  // null: the log is empty, or is of no use
  RegionTable regions;
  std::vector<FileRange> places;  // of log and regions: ascending
  MetadataItems items;            // bytes of the file
  Geometry geometry;
  bool has_bat = false;                   // all entries that the disk needs lie in the file
  std::vector<std::byte> parent_locator;  // the item's bytes; empty: there is none
  std::optional<ParentLink> parent;       // of a differencing image, when it can be understood
  Defects defects;                        // why the image cannot be served, in the order of reading
  Remarks remarks;
};

// Without defects, all of it is sure, and the BAT has all entries that the disk needs, within the
// file. Fails when the file is no VHDX, or cannot be read. Memory: the log's kMaxLogBytes, what it
// changes, and an item of kMaxItemBytes. May block.
// kIgnore: as the file is, with a log that must be replayed or without.
enum class Log : uint8_t { kReplay, kIgnore };
Result<Structures> read_structures(std::shared_ptr<const Source> file, Log log = Log::kReplay);

// The file, with its log replayed when that must be and can be done.
inline const Source& content_of(const Structures& structures, const Source& file) {
  return structures.replayed ? static_cast<const Source&>(*structures.replayed) : file;
}

// The bytes of `range`. REQUIRES: its length was checked against a limit.
Result<std::vector<std::byte>> read_bytes(const Source& source, const FileRange& range);

}  // namespace underlay::vhdx
