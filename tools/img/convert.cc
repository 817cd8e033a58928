#include "tools/img/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <filesystem>
#include <optional>

#include "formats/file_name.h"
#include "formats/options/option_values.h"
#include "io/http/remote_name.h"
#include "tools/img/backing_place.h"
#include "tools/img/broken_pipe.h"
#include "tools/img/disk_walk.h"
#include "tools/img/image_argument.h"
#include "tools/img/image_files.h"
#include "tools/img/qemu_size.h"
#include "tools/img/say.h"
#include "tools/img/target_format.h"
#include "tools/img/target_sink.h"
#include "tools/img/upload_sink.h"

namespace underlay::img {
namespace {

std::vector<Option> options() {
  static const std::string formats =
      fmt::format("of the new image: {}; default: raw", target_format_names());
  std::vector<Option> all = image_options();
  const std::vector<Option> own = {
      {.rule = {.name = "target-format", .letter = 'O', .takes_value = true},
       .value_name = "FORMAT",
       .help = formats},
      {.rule = {.name = "options", .letter = 'o', .takes_value = true, .repeat = Repeat::kEach},
       .value_name = "OPTIONS",
       .help = "how the new image is made, KEY=VALUE,KEY=VALUE; repeatable"},
      {.rule = {.name = "compress", .letter = 'c'},
       .help = "compress what is stored (qcow2, streamOptimized vmdk)"},
      {.rule = {.name = "sparse-size", .letter = 'S', .takes_value = true},
       .value_name = "SIZE",
       .help = "leave out zeros of so many bytes, rounded down to a power of two (default: 4k); "
               "0: store all"},
      {.rule = {.name = "data-map", .takes_value = true, .own = true},
       .value_name = "MAP",
       .help = "of a raw disk: what has data, as 'map --output=json' prints it; the rest is zeros"},
      {.rule = {.name = "backing", .letter = 'B', .takes_value = true},
       .value_name = "NAME",
       .help = "what lies outside of --data-map is that of the backing file NAME (qcow2, vpc)"},
      {.rule = {.name = "backing-format", .letter = 'F', .takes_value = true},
       .value_name = "FORMAT",
       .help = "of the backing file"},
      snapshot_option(),
      {.rule = {.name = "threads", .letter = 'm', .takes_value = true},
       .value_name = "N",
       .help =
           "read and compress with at most N threads, 1 to 16 (default: one for each processor)"},
      {.rule = {.name = "out-of-order", .letter = 'W'},
       .help = "taken for qemu-img's sake: an image is the same however many threads there are"},
      cache_option(),
      {.rule = {.name = "target-cache", .letter = 't', .takes_value = true},
       .value_name = "CACHE",
       .help = "unsafe (default): done when all is written; any other of qemu-img's: when all is "
               "on the disk"},
      progress_option(),
      quiet_option(),
  };
  all.insert(all.end(), own.begin(), own.end());
  return all;
}

// Long enough that the threads seldom wait for each other, short enough for the processor's cache.
constexpr uint64_t kReadPart = 1 << 20;

Result<uint64_t> zero_block(const Given& given) {
  constexpr uint64_t kSector = 512;
  constexpr uint64_t kLargest = 16 << 20;  // qemu-img's
  const uint64_t size = TRY(parse_qemu_size("-S", given.last_or("sparse-size", "4k")));
  if (!is_aligned(size, kSector) || size > kLargest) {
    return fail(ErrorKind::kUsage, "-S: must be a multiple of {}, at most {}, not {}", kSector,
                kLargest, size);
  }
  // Smaller ones leave out all that larger ones do.
  return std::min(std::bit_floor(size), ImageWriter::kLargestUnit);
}

Result<unsigned> thread_count(const Given& given) {
  if (!given.has("threads")) return ReadSettings::default_threads();
  const uint64_t count = TRY(parse_qemu_size("-m", given.last("threads")));
  if (count > 0 && count <= OrderedReads::kMostThreads) return static_cast<unsigned>(count);
  return fail(ErrorKind::kUsage, "-m: must be from 1 to {}, not {}", OrderedReads::kMostThreads,
              count);
}

Result<NewFile::Durability> durability(const Given& given) {
  const std::string mode = given.last_or("target-cache", "unsafe");
  TRY(check_cache_mode("-t", mode));
  return mode == "unsafe" ? NewFile::Durability::kInMemory : NewFile::Durability::kOnDisk;
}

std::string file_name(const std::string& path) {
  return path == kStandardOutput ? "disk.vmdk" : path.substr(path.find_last_of('/') + 1);
}

// What is stored of zeros that are not left out.
class StoredZeros {
 public:
  explicit StoredZeros(ImageWriter& writer) : writer_(writer), zeros_(ImageWriter::kLargestUnit) {}

  Result<void> write(const DiskPart& part) {
    for (uint64_t done = 0; done < part.length;) {
      const ByteSpan step =
          ByteSpan(zeros_).first(std::min<uint64_t>(part.length - done, zeros_.size()));
      TRY(writer_.prepare(step, prepared_));
      TRY(writer_.write(part.offset + done, step, prepared_));
      done += step.size();
    }
    return {};
  }

 private:
  ImageWriter& writer_;
  std::vector<std::byte> zeros_;
  std::vector<std::byte> prepared_;
};

struct Conversion {
  ImageArgument image;
  std::string target;
  std::string target_format;
  TargetFormat format;
  DiskToWrite disk;  // but for the size
  unsigned threads = 0;
  NewFile::Durability durability = NewFile::Durability::kInMemory;
  WalkManners manners;
  bool is_overlay = false;  // what is left out is the backing file's
  std::optional<ImageArgument> backing;
};

// Of the operand TARGET.
Result<std::string> target_name(const std::string& operand) {
  if (operand == kStandardOutput) return operand;
  std::string name = TRY(plain_file_name(operand));
  return name == kStandardOutput ? "./" + name : name;
}

// The backing image, which may have parents of its own: they are found as the source's are.
Result<ImageArgument> backing_image(const Given& given, const Conversion& conversion) {
  ImageArgument backing;
  backing.location =
      TRY(backing_place(conversion.target, given.last("backing"), conversion.image.allowed));
  TRY(check_backing_is_kept(conversion.target, backing.location));
  backing.path = shown_name(backing.location);
  backing.open.format = given.last("backing-format");
  backing.open.parents = conversion.image.open.parents;
  backing.open.sharing = conversion.image.open.sharing;
  backing.allowed = conversion.image.allowed;
  return backing;
}

Result<Conversion> conversion(const Given& given) {
  TRY(check_cache_option(given));
  if (given.has("backing") && given.last("backing").empty()) {
    return fail(ErrorKind::kUsage, "-B: the name is empty");
  }
  Conversion conversion;
  conversion.target = TRY(target_name(given.operands()[1]));
  conversion.target_format = given.last_or("target-format", "raw");
  conversion.format = TRY(target_format({.format = conversion.target_format,
                                         .options = given.each("options"),
                                         .compress = given.has("compress"),
                                         .file_name = file_name(shown_name(conversion.target)),
                                         .backing = given.last_or("backing", ""),
                                         .backing_format = given.last_or("backing-format", "")}));
  conversion.disk.zero_block = TRY(zero_block(given));
  conversion.threads = TRY(thread_count(given));
  conversion.durability = TRY(durability(given));
  conversion.manners = walk_manners(given, "converted");
  conversion.image = TRY(image_argument(given, given.operands()[0]));
  choose_snapshot(given, conversion.image);
  if (given.has("data-map")) {
    if (conversion.image.open.format != kRawFormat || conversion.image.is_export()) {
      return fail(ErrorKind::kUsage, "--data-map: is for files and devices with -f raw");
    }
    conversion.image.data_map = TRY(read_data_map(given.last("data-map")));
  }
  conversion.is_overlay = given.has("backing");
  if (conversion.is_overlay) {
    if (!conversion.image.data_map || !given.has("backing-format")) {
      return fail(ErrorKind::kUsage, "-B: needs --data-map and -F");
    }
    conversion.disk.zero_block = 0;
    conversion.image.file_holes = FileHoles::kData;
    auto backing = backing_image(given, conversion);
    // A qcow2 may name what does not lie beside it.
    if (!backing &&
        (conversion.format.reads_backing || backing.error().kind == ErrorKind::kUsage)) {
      return Failure(std::move(backing).error());
    }
    // Nor is a URL one of a chain of files.
    const bool is_url = given.last("backing").find("://") != std::string::npos;
    if (backing && !is_url) conversion.backing = *std::move(backing);
  }
  return conversion;
}

// Of an overlay: all in the map is stored, zeros too, and nothing else; so no part has some of
// both.
Result<void> check_overlay(const Conversion& conversion, const Disk& disk,
                           const ImageWriter& writer) {
  const uint64_t unit = writer.unit();
  for (const DataRange& range : *conversion.image.data_map) {
    if (is_aligned(range.begin, unit) &&
        (is_aligned(range.end, unit) || range.end >= disk.size())) {
      continue;
    }
    return fail(ErrorKind::kUsage,
                "--data-map: bytes {} to {}: with -B, ranges must begin and end at multiples of {}",
                range.begin, range.end, unit);
  }
  return {};
}

Result<void> write_disk(const Conversion& conversion, const Disk& disk, ImageWriter& writer) {
  ReadSettings settings;
  settings.threads = conversion.threads;
  settings.unit = writer.unit();
  settings.part = kReadPart;
  settings.work = [&](unsigned, const DiskPart& part, std::vector<std::byte>& prepared) {
    return writer.prepare(part.bytes, prepared);
  };
  const bool keeps_zeros = conversion.disk.zero_block == 0 && !conversion.is_overlay;
  StoredZeros zeros(writer);
  WalkCounts counts;
  TRY(walk_disk(disk, std::move(settings), conversion.manners, counts,
                [&](const DiskPart& part) -> Result<void> {
                  if (!part.is_zero()) return writer.write(part.offset, part.bytes, part.product);
                  return keeps_zeros ? zeros.write(part) : Result<void>();
                }));
  return writer.finish();
}

// Is there something that may be replaced? Of a server, nobody knows.
bool may_be_there(const std::string& target) {
  std::error_code error;
  return is_remote_name(target) || std::filesystem::exists(target, error);
}

// The target must be no image of the backing chain, as far as that can be opened, wherever its
// images are.
Result<void> check_chain_is_kept(const Conversion& conversion, Caches& caches) {
  ImageArgument backing = *conversion.backing;
  backing.allowed.emplace_back("/");
  Result<void> kept;
  (void)open_image(backing, caches, /*quiet=*/true, [&](const ChainImage& image) -> Result<void> {
    kept = check_is_no_file_of(conversion.target, *image.file.source);
    return kept;
  });
  return kept;
}

// The backing image, null when the format does not need it.
Result<std::shared_ptr<const Disk>> open_backing(const Conversion& conversion, Caches& caches) {
  if (!conversion.backing) return nullptr;
  if (may_be_there(conversion.target)) TRY(check_chain_is_kept(conversion, caches));
  if (!conversion.format.reads_backing) return nullptr;
  auto opened = open_image(*conversion.backing, caches, conversion.manners.quiet);
  if (!opened) return with_context(std::move(opened).error(), "-B: ");
  const Source& file = (*opened)->layers().front().reader->image_source();
  if (&file.file() != &file) {
    return in_file(fail(ErrorKind::kUsage,
                        "-B: is in an archive, or compressed, where no image finds its parent: "
                        "unpack it"),
                   file.name());
  }
  return opened;
}

Result<std::unique_ptr<Sink>> open_sink(const Conversion& conversion, const Disk& disk) {
  const bool is_sequential = conversion.format.is_sequential;
  if (is_remote_name(conversion.target)) {
    return open_upload(conversion.target, disk, disk.size(),
                       is_sequential ? WriteOrder::kSequential : WriteOrder::kAny);
  }
  if (conversion.target == kStandardOutput && !is_sequential) {
    return fail(ErrorKind::kUsage,
                "an image of the format {} cannot be written to standard output, because its first "
                "bytes are known last: raw, vpc with -o subformat=fixed and vmdk with "
                "-o subformat=streamOptimized can",
                conversion.target_format);
  }
  return open_target(conversion.target, disk, conversion.durability);
}

Result<int> run(const Given& given) {
  Conversion conversion = TRY(underlay::img::conversion(given));
  Caches caches;
  const auto disk = TRY(open_image(conversion.image, caches, conversion.manners.quiet));
  conversion.disk.size = disk->size();
  // Else a peer that has gone would leave the half of a file.
  std::optional<BrokenPipeAsError> while_unfinished;
  if (conversion.target != kStandardOutput) while_unfinished.emplace();
  const auto backing = TRY(open_backing(conversion, caches));
  const auto sink = TRY(open_sink(conversion, *disk));
  const Source* const parent =
      backing ? &backing->layers().front().reader->image_source() : nullptr;
  const auto writer = TRY(conversion.format.make_writer(conversion.disk, parent, *sink));
  if (conversion.is_overlay) TRY(check_overlay(conversion, *disk, *writer));
  TRY(write_disk(conversion, *disk, *writer));
  return kDone;
}

}  // namespace

Command convert_command() {
  return {.name = "convert",
          .operands = "FILE TARGET",
          .summary = "write what a guest sees as another image",
          .options = options,
          .notes =
              "TARGET is a file, which is there in full or not at all, or - for standard "
              "output (raw, vpc\nwith -o subformat=fixed, vmdk with -o "
              "subformat=streamOptimized), or the URL of an object on\na web server that takes "
              "PUT, or in an S3 store.\n",
          .run = run};
}

}  // namespace underlay::img
