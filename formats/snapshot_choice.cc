#include "formats/snapshot_choice.h"

#include "formats/comma_list.h"

namespace underlay {
namespace {

constexpr std::string_view kIdKey = "snapshot.id=";
constexpr std::string_view kNameKey = "snapshot.name=";

bool answers(const SnapshotChoice& choice, const SnapshotLabel& snapshot) {
  return (!choice.id || *choice.id == snapshot.id) &&
         (!choice.name || *choice.name == snapshot.name);
}

std::string describe(const SnapshotChoice& choice) {
  std::string text;
  if (choice.id_or_name) text = fmt::format("id or name \"{}\"", printable(*choice.id_or_name));
  if (choice.id) text = fmt::format("id \"{}\"", printable(*choice.id));
  if (choice.id && choice.name) text += " and ";
  if (choice.name) text += fmt::format("name \"{}\"", printable(*choice.name));
  return text;
}

Result<std::optional<size_t>> find_one(const SnapshotChoice& choice,
                                       std::span<const SnapshotLabel> snapshots) {
  std::optional<size_t> found;
  for (size_t i = 0; i < snapshots.size(); ++i) {
    if (!answers(choice, snapshots[i])) continue;
    if (found) {
      return fail(ErrorKind::kMalformed,
                  "two snapshots have the {}: choose with -l snapshot.id=ID,snapshot.name=NAME",
                  describe(choice));
    }
    found = i;
  }
  return found;
}

}  // namespace

Result<SnapshotChoice> parse_snapshot_choice(std::string_view text) {
  SnapshotChoice choice;
  if (!text.starts_with("snapshot.")) {
    choice.id_or_name = text;
    return choice;
  }
  for (const std::string& part : split_at_commas(text)) {
    if (part.starts_with(kIdKey)) {
      choice.id = part.substr(kIdKey.size());
    } else if (part.starts_with(kNameKey)) {
      choice.name = part.substr(kNameKey.size());
    } else {
      return fail(ErrorKind::kUsage,
                  "-l: \"{}\" is neither snapshot.id=ID nor snapshot.name=NAME in \"{}\"",
                  printable(part, 80), printable(text, 200));
    }
  }
  return choice;
}

Result<size_t> find_snapshot(const SnapshotChoice& choice,
                             std::span<const SnapshotLabel> snapshots) {
  std::optional<size_t> found;
  if (choice.id_or_name) {
    found = TRY(find_one({.id = choice.id_or_name, .name = {}, .id_or_name = {}}, snapshots));
    if (!found) {
      found = TRY(find_one({.id = {}, .name = choice.id_or_name, .id_or_name = {}}, snapshots));
    }
  } else {
    found = TRY(find_one(choice, snapshots));
  }
  if (!found) {
    return fail(ErrorKind::kNotFound, "has no internal snapshot with the {}", describe(choice));
  }
  return *found;
}

}  // namespace underlay
