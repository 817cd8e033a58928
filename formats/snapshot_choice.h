// Which internal snapshot -l means.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "io/error.h"

namespace underlay {

// What an image calls one of its snapshots.
struct SnapshotLabel {
  std::string id;
  std::string name;
};

struct SnapshotChoice {
  std::optional<std::string> id;          // must be the snapshot's id
  std::optional<std::string> name;        // must be the snapshot's name
  std::optional<std::string> id_or_name;  // set alone: one of both; an id is looked for first
};

// Reads qemu-nbd's -l: "snapshot.id=ID", "snapshot.name=NAME", both with a comma between them, or
// "ID_OR_NAME". A comma in a value is written twice. Fails with kUsage.
Result<SnapshotChoice> parse_snapshot_choice(std::string_view text);

// The index of the snapshot that `choice` means. kNotFound when there is none, kMalformed when two
// snapshots answer to it.
Result<size_t> find_snapshot(const SnapshotChoice& choice,
                             std::span<const SnapshotLabel> snapshots);

}  // namespace underlay
