#include "tools/img/map.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/img/image_argument.h"
#include "tools/img/map_entries.h"
#include "tools/img/map_picture.h"
#include "tools/img/qemu_size.h"
#include "tools/img/say.h"
#include "tools/img/shown_names.h"

namespace underlay::img {
namespace {

struct Range {
  uint64_t start = 0;
  uint64_t length = UINT64_MAX;

  uint64_t end(const Disk& disk) const {
    const uint64_t size = disk.size();
    return start < size ? start + std::min(length, size - start) : start;
  }
};

std::vector<Option> options() {
  std::vector<Option> all = image_options();
  all.push_back({.rule = {.name = "start-offset", .letter = 's', .takes_value = true},
                 .value_name = "OFFSET",
                 .help = "begin at this byte of the disk (default: 0)"});
  all.push_back({.rule = {.name = "max-length", .letter = 'l', .takes_value = true},
                 .value_name = "LENGTH",
                 .help = "end after so many bytes (default: with the disk)"});
  all.push_back({.rule = {.name = "output", .takes_value = true},
                 .value_name = "FORMAT",
                 .help = "print what is stored as a table ('human', the default), everything as "
                         "'json', or a picture of the disk, 'svg' or 'png'"});
  all.push_back(progress_option());
  return all;
}

Result<Range> range_of(const Given& given) {
  Range range;
  if (given.has("start-offset")) {
    range.start = TRY(parse_qemu_size("--start-offset", given.last("start-offset")));
  }
  if (given.has("max-length")) {
    range.length = TRY(parse_qemu_size("--max-length", given.last("max-length")));
  }
  return range;
}

// qemu-img's table: only what is stored. It gives up on bytes that lie nowhere as they are; here
// the place is a word, which no script takes for an offset.
Result<void> print_table(const Disk& disk, const Range& range, const ShownNames& names,
                         Progress* progress) {
  fmt::print("{:<16}{:<16}{:<16}{}\n", "Offset", "Length", "Mapped to", "File");
  return each_map_entry(
      disk, range.start, range.end(disk), progress, [&](const MapEntry& entry) -> Result<void> {
        if (!entry.data) return {};
        std::string place = "-";
        if (entry.offset) {
          place = *entry.offset == 0 ? "0" : fmt::format("{:#x}", *entry.offset);
        } else if (entry.compressed) {
          place = "compressed";
        }
        // printf's "%#x" has no prefix for 0.
        fmt::print("{:<16}{:<16}{:<16}{}\n",
                   entry.start == 0 ? "0" : fmt::format("{:#x}", entry.start),
                   fmt::format("{:#x}", entry.length), place, printable(names.of(entry.filename)));
        return {};
      });
}

std::string json_object(const MapEntry& entry, const ShownNames& names) {
  std::string line = fmt::format(
      R"({{ "start": {}, "length": {}, "depth": {}, "present": {}, "zero": {}, "data": {}, "compressed": {})",
      entry.start, entry.length, entry.depth, entry.present, entry.zero, entry.data,
      entry.compressed);
  if (entry.offset) line += fmt::format(R"(, "offset": {})", *entry.offset);
  if (!entry.filename.empty()) {
    line += fmt::format(R"(, "filename": {})", json_in_one_line(names.of(entry.filename)));
  }
  return line;
}

// Entry by entry: however many there are, none is kept.
Result<void> print_json_entries(const Disk& disk, const Range& range, const ShownNames& names,
                                Progress* progress) {
  bool first = true;
  const auto done = each_map_entry(
      disk, range.start, range.end(disk), progress, [&](const MapEntry& entry) -> Result<void> {
        fmt::print("{}{}{}}}", first ? "[" : ",\n", json_object(entry, names),
                   first ? fmt::format(R"(, "version": {})", kJsonVersion) : "");
        first = false;
        return {};
      });
  // Without its end, a program that reads only this stream knows that something is missing.
  fmt::print("{}", done ? "]\n" : "\n");
  return done;
}

Result<int> run(const Given& given) {
  const std::string output = given.last_or("output", "human");
  const auto picture = picture_format(output);
  if (!picture && output != "human" && output != "json") {
    return fail(ErrorKind::kUsage,
                "--output must be used with human, json, svg or png as argument, not '{}'",
                printable(output, 80));
  }
  const ImageArgument argument = TRY(image_argument(given, given.operands()[0]));
  const Range range = TRY(range_of(given));
  if (picture) TRY(check_picture_output(*picture));
  Caches caches;
  const auto disk = TRY(open_image(argument, caches, /*quiet=*/false));
  Progress progress(given.has("progress"));
  // A table on a terminal needs the place itself.
  Progress* const beside_text = given.has("progress") ? &progress : nullptr;
  if (picture) {
    TRY(print_picture(*disk, range.start, range.end(*disk), *picture, progress));
  } else if (output == "json") {
    TRY(print_json_entries(*disk, range, ShownNames(argument.path), beside_text));
  } else {
    TRY(print_table(*disk, range, ShownNames(argument.path), beside_text));
  }
  return kDone;
}

}  // namespace

Command map_command() {
  return {.name = "map",
          .operands = "FILE",
          .summary = "tell which parts of the disk are stored, and where",
          .options = options,
          .run = run};
}

}  // namespace underlay::img
