// What an image says of itself, as Inspector::describe() tells it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "formats/file_range.h"
#include "formats/inspection/finding.h"

namespace underlay {

// The name of a file (or URL) that stands in an image. All of it is text of the image.
struct NameInImage {
  std::string role;      // "backing file", "data file", "extent", "parent (W2ru)"
  std::string name;      // as written, in UTF-8 where the encoding is known
  std::string format{};  // what the image says that it is; "" when it does not say
  // What is tried where it leads nowhere: the last component of a Windows path, say.
  std::vector<std::string> otherwise{};
  bool followed = true;  // opened when the image is served (of several names of a parent, maybe)
  std::optional<FileRange> range{};  // bytes that are used of the file; nullopt: maybe all

  // The least size of the file, as far as the image says.
  uint64_t least_bytes() const { return range ? range->offset + range->length : 0; }
};

struct SnapshotFacts {
  std::string id;
  std::string name;
  uint64_t vm_state_size = 0;  // bytes
  uint32_t date_sec = 0;       // since 1970, UTC
  uint32_t date_nsec = 0;
  uint64_t vm_clock_nsec = 0;
  std::optional<uint64_t> icount{};
  std::optional<uint64_t> disk_size{};  // bytes, where the format records it
};

// What an image says of itself. Field names are those of qemu-img info's JSON with '_' for '-'.
struct ImageFacts {
  uint64_t virtual_size = 0;             // bytes, by the rule that the reader follows
  std::optional<uint64_t> cluster_size;  // bytes; nullopt where qemu-img tells none
  bool encrypted = false;
  bool compressed = false;       // the format stores all data compressed (vmdk streamOptimized)
  bool dirty = false;            // qemu-img's dirty-flag
  std::string backing_filename;  // "" for none
  std::string backing_filename_format;  // "" when not stated
  std::vector<SnapshotFacts> snapshots;
  // qemu-img's format-specific "data" (its type is the format's name) with further fields of ours
  // behind; null when there is nothing.
  nlohmann::ordered_json specific;
  std::string creator;   // who wrote it, as the image says; "" when it does not
  std::string identity;  // what children call it (Reader::identity()); "" for none
  // Every name of another file that stands in the image, also where it is not used.
  std::vector<NameInImage> names;
  // What a careful operator wants to know: unknown features, fields that contradict each other,
  // fields that lie. kCorruption: it must not be served. kNotice: it smells.
  std::vector<Finding> findings;
};

}  // namespace underlay
