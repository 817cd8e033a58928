#include "tools/img/measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <nlohmann/json.hpp>

#include "formats/inspection/image_facts.h"
#include "formats/inspection/inspector.h"
#include "tools/common/interruption.h"
#include "tools/img/image_argument.h"
#include "tools/img/image_size.h"
#include "tools/img/map_entries.h"
#include "tools/img/qemu_size.h"
#include "tools/img/say.h"

namespace underlay::img {
namespace {

std::vector<Option> options() {
  std::vector<Option> all = image_options();
  const std::vector<Option> own = {
      {.rule = {.name = "target-format", .letter = 'O', .takes_value = true},
       .value_name = "FORMAT",
       .help = "of the image that is to be made: raw (default), qcow2 or luks"},
      {.rule = {.name = "options", .letter = 'o', .takes_value = true, .repeat = Repeat::kEach},
       .value_name = "OPTIONS",
       .help = "how it is to be made, KEY=VALUE,KEY=VALUE; repeatable"},
      {.rule = {.name = "size", .takes_value = true},
       .value_name = "SIZE",
       .help = "of a new disk of this size, instead of FILE"},
      snapshot_option(),
      output_option(),
  };
  all.insert(all.end(), own.begin(), own.end());
  return all;
}

Result<void> check_use(const Given& given) {
  const bool has_file = !given.operands().empty();
  for (const std::string_view option : {"format", "image-opts", "snapshot"}) {
    if (!has_file && given.has(option)) {
      return fail(ErrorKind::kUsage, "--{} requires a filename argument", option);
    }
  }
  if (has_file && given.has("size")) {
    return fail(ErrorKind::kUsage, "--size cannot be used together with a filename");
  }
  if (!has_file && !given.has("size")) {
    return fail(ErrorKind::kUsage, "either --size or one filename must be specified");
  }
  return {};
}

Result<DiskToStore> new_disk(const std::string& text) {
  constexpr uint64_t kLargest = std::numeric_limits<int64_t>::max();
  const uint64_t size = TRY(parse_qemu_size("--size", text));
  const auto whole = round_up(size, Disk::kSectorBytes);
  if (!whole || *whole > kLargest) {
    return fail(ErrorKind::kUsage, "--size {}: must be between 0 and {}", size, kLargest);
  }
  return DiskToStore{.size = *whole};
}

// As QEMU, which asks the file system for holes where an image is stored in one piece. It also does
// where it takes an image for preallocated: that is all data here.
Result<Extent> map_as_qemu(const Disk& disk, uint64_t offset) {
  const uint64_t rest = std::min(disk.size() - offset, kMapStep);
  const Extent extent = TRY(disk.map(offset, rest, MapFor::kRead));
  if (extent.kind != Extent::Kind::kData) return extent;
  const Reader& reader = *disk.layers()[extent.depth - 1u].reader;
  if (reader.cluster_size() != 0) return extent;
  return disk.map(offset, rest, MapFor::kStatus);
}

Result<uint64_t> data_bytes(const Disk& disk, uint64_t cluster_size) {
  uint64_t bytes = 0;
  for (uint64_t at = 0; at < disk.size();) {
    if (is_interrupted()) {
      say_error(fmt::format("interrupted: {} of {} bytes measured", at, disk.size()));
      return fail_errno(EINTR, "interrupted");
    }
    const Extent extent = TRY(map_as_qemu(disk, at));
    if (extent.kind == Extent::Kind::kZero) {
      at += extent.length;
      continue;
    }
    const uint64_t begin = at - at % cluster_size;
    const auto end = round_up(at + extent.length, cluster_size);
    if (!end) return fail(ErrorKind::kLimit, "the disk is too large to be measured");
    bytes += *end - begin;
    at = *end;
  }
  return bytes;
}

// Of the chain that is open: an export may serve no second client.
struct TopImage {
  OpenedFile file;
  const Format* format = nullptr;
};

// Those that the image itself has, not its parents'; as qemu-img, also inconsistent ones.
Result<std::optional<std::vector<BitmapToStore>>> bitmaps_of(const TopImage& top,
                                                             const ImageOptions& options,
                                                             Caches& caches) {
  if (top.format->name != "qcow2") return std::nullopt;
  const FileToInspect file = file_to_inspect(top.file, options, caches);
  const ImageFacts facts = TRY(inspector_of(top.format->name).describe(file));
  if (facts.specific.value("compat", "") != "1.1") return std::nullopt;
  std::vector<BitmapToStore> bitmaps;
  const auto stored = facts.specific.find("bitmaps");
  if (stored == facts.specific.end()) return bitmaps;
  for (const auto& bitmap : *stored) {
    const uint64_t granularity = bitmap.value("granularity", uint64_t{0});
    if (granularity == 0) continue;  // was found to be damaged
    bitmaps.push_back({.name = bitmap.at("name"), .granularity = granularity});
  }
  return bitmaps;
}

void print(const ImageSize& size, OutputFormat output) {
  if (output == OutputFormat::kJson) {
    nlohmann::ordered_json document{{"version", kJsonVersion}};
    if (size.bitmaps) document["bitmaps"] = *size.bitmaps;
    document["required"] = size.required;
    document["fully-allocated"] = size.fully_allocated;
    print_json(document);
    return;
  }
  fmt::print("required size: {}\nfully allocated size: {}\n", size.required, size.fully_allocated);
  if (size.bitmaps) fmt::print("bitmaps size: {}\n", *size.bitmaps);
}

Result<int> run(const Given& given) {
  const OutputFormat output = TRY(output_format(given));
  TRY(check_use(given));
  const std::string format = given.last_or("target-format", "raw");
  if (given.operands().empty()) {
    const DiskToStore disk = TRY(new_disk(given.last("size")));
    print(TRY(image_size(format, given.each("options"), disk)), output);
    return kDone;
  }
  ImageArgument image = TRY(image_argument(given, given.operands()[0]));
  choose_snapshot(given, image);
  Caches caches;
  TopImage top;
  const auto disk = TRY(open_image(image, caches, /*quiet=*/false, [&](const auto& layer) {
    if (top.format == nullptr) top = {.file = layer.file, .format = &layer.format};
    return Result<void>();
  }));
  DiskToStore stored{.size = disk->size()};
  stored.data_bytes = [&](uint64_t cluster_size) { return data_bytes(*disk, cluster_size); };
  stored.bitmaps = TRY(bitmaps_of(top, image.open.image, caches));
  print(TRY(image_size(format, given.each("options"), stored)), output);
  return kDone;
}

}  // namespace

Command measure_command() {
  return {.name = "measure",
          .operands = "[FILE]",
          .summary = "tell how large an image will be, before it is made",
          .options = options,
          .run = run};
}

}  // namespace underlay::img
