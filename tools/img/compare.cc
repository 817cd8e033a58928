#include "tools/img/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "tools/img/compare_status.h"
#include "tools/img/content_comparison.h"
#include "tools/img/image_argument.h"
#include "tools/img/ordered_reads.h"
#include "tools/img/say.h"
#include "tools/img/second_opinion.h"
#include "tools/img/status_comparison.h"

namespace underlay::img {
namespace {

using Kind = ComparisonEnd::Kind;

constexpr std::string_view kSecondFormat = "b-format";
constexpr std::string_view kSecondOpinion = "second-opinion";

// QEMU finds differences by the sector.
constexpr uint64_t kSector = 512;

// More than there are processors: some may wait for a device or a server.
constexpr unsigned kLeastThreads = 4;

std::vector<Option> options() {
  std::vector<Option> all = image_options();
  const std::vector<Option> own = {
      {.rule = {.name = kSecondFormat, .letter = 'F', .takes_value = true},
       .value_name = "FORMAT",
       .help = "the second image's format (default: guessed)"},
      {.rule = {.name = "strict", .letter = 's'},
       .help = "sizes must be equal, too, and where the images have data, zeros and nothing"},
      cache_option(),
      {.rule = {.name = kSecondOpinion, .own = true},
       .help = "compare FILE1 alone with what libqcow, libvhdi or libvmdk read of it"},
      output_option(),
      progress_option(),
      quiet_option(),
  };
  all.insert(all.end(), own.begin(), own.end());
  return all;
}

struct Manners {
  OutputFormat output = OutputFormat::kHuman;
  bool quiet = false;
  bool progress = false;
  bool strict = false;
};

class Comparison {
 public:
  Comparison(const Disk& first, const Disk& second, Manners manners)
      : disks_{&first, &second},
        manners_(manners),
        shorter_(std::min(first.size(), second.size())),
        longer_(std::max(first.size(), second.size())) {}

  void run() {
    uint64_t end = longer_;
    ComparisonEnd status;
    if (manners_.strict) {
      if (shorter_ != longer_) return;
      status = compare_status(*disks_[0], *disks_[1], longer_);
      // What differs in front of it comes first.
      end = status.kind == Kind::kEqual ? longer_ : status.offset;
    }
    Progress progress(manners_.progress);
    progress.begin(longer_);
    ContentComparison contents(*disks_[0], *disks_[1], end, manners_.quiet ? nullptr : &progress);
    end_ = contents.run(std::max(ReadSettings::default_threads(), kLeastThreads));
    progress.end();
    if (end_.kind == Kind::kEqual && status.kind != Kind::kEqual) {
      status_differs_ = status.kind == Kind::kDiffers;
      status.compared = end_.compared;
      status.read = end_.read;
      end_ = std::move(status);
    }
  }

  // A file that was written to meanwhile was not compared.
  Result<void> check_unchanged() const {
    for (const Disk* const disk : disks_) TRY(disk->check_unchanged());
    return {};
  }

  bool sizes_differ() const { return shorter_ != longer_; }
  bool is_strict_about_sizes() const { return manners_.strict && sizes_differ(); }
  bool reached_the_rest() const { return end_.kind == Kind::kEqual || end_.offset >= shorter_; }
  bool status_differs() const { return status_differs_; }
  const ComparisonEnd& end() const { return end_; }
  uint64_t size() const { return longer_; }

 private:
  std::array<const Disk*, 2> disks_;
  Manners manners_;
  uint64_t shorter_;
  uint64_t longer_;
  ComparisonEnd end_;
  bool status_differs_ = false;
};

void print_human(const Comparison& comparison) {
  if (comparison.is_strict_about_sizes()) {
    fmt::print("Strict mode: Image size mismatch!\n");
    return;
  }
  if (comparison.sizes_differ() && comparison.reached_the_rest()) {
    fmt::print("Warning: Image size mismatch!\n");
  }
  const ComparisonEnd& end = comparison.end();
  if (end.kind == Kind::kEqual) fmt::print("Images are identical.\n");
  if (end.kind != Kind::kDiffers) return;
  if (comparison.status_differs()) {
    fmt::print("Strict mode: Offset {} block status mismatch!\n", end.offset);
  } else {
    fmt::print("Content mismatch at offset {}!\n", end.offset - end.offset % kSector);
  }
}

void print_as_json(const Comparison& comparison) {
  const ComparisonEnd& end = comparison.end();
  const bool sizes = comparison.is_strict_about_sizes();
  nlohmann::ordered_json document{{"version", kJsonVersion},
                                  {"identical", end.kind == Kind::kEqual && !sizes},
                                  {"sizes-differ", comparison.sizes_differ()},
                                  {"bytes-compared", end.compared},
                                  {"bytes-read", end.read}};
  if (sizes) document["mismatch"] = "size";
  if (end.kind == Kind::kDiffers) {
    document["mismatch"] = comparison.status_differs() ? "block-status" : "content";
    document["offset"] = end.offset;
  }
  print_json(document);
}

void say_failure(const Comparison& comparison, const std::array<ImageArgument, 2>& images) {
  const ComparisonEnd& end = comparison.end();
  const std::string& path = images[end.side].path;
  const std::string reason = end.error.to_string();
  if (end.kind == Kind::kCannotMap) {
    say_error(fmt::format("Sector allocation test failed for {} at offset {}: {}", path, end.offset,
                          reason));
  } else {
    say_error(fmt::format("Error while reading offset {} of {}: {}", end.offset, path, reason));
  }
}

int status_of(const Comparison& comparison) {
  if (comparison.is_strict_about_sizes()) return kDifferent;
  switch (comparison.end().kind) {
    case Kind::kEqual:
      return kIdentical;
    case Kind::kDiffers:
      return kDifferent;
    case Kind::kCannotMap:
      return kMapFailed;
    case Kind::kCannotRead:
    case Kind::kInterrupted:
      break;
  }
  return kReadFailed;
}

Result<int> tell(const Comparison& comparison, const std::array<ImageArgument, 2>& images,
                 Manners manners) {
  const ComparisonEnd& end = comparison.end();
  const bool interrupted = end.kind == Kind::kInterrupted;
  if (interrupted || (manners.progress && !manners.quiet)) {
    say_error(fmt::format("{}{} of {} bytes compared, {} and {} of them read",
                          interrupted ? "interrupted: " : "", end.compared, comparison.size(),
                          end.read[0], end.read[1]));
  }
  if (interrupted) return fail_errno(EINTR, "interrupted");
  if (auto unchanged = comparison.check_unchanged(); !unchanged) {
    say_error(unchanged.error().to_string());
    return kReadFailed;
  }
  const int status = status_of(comparison);
  if (!manners.quiet && manners.output == OutputFormat::kHuman) print_human(comparison);
  if (status > kDifferent) {
    say_failure(comparison, images);
    return status;
  }
  if (!manners.quiet && manners.output == OutputFormat::kJson) print_as_json(comparison);
  return status;
}

Result<int> run(const Given& given) {
  TRY(check_cache_option(given));
  const Manners manners{.output = TRY(output_format(given)),
                        .quiet = given.has("quiet"),
                        .progress = given.has("progress"),
                        .strict = given.has("strict")};
  std::array<ImageArgument, 2> images;
  images[0] = TRY(image_argument(given, given.operands()[0]));
  const size_t operands = given.operands().size();
  if (given.has(kSecondOpinion) == (operands == 2)) {
    return fail(ErrorKind::kUsage, "compare takes FILE1 FILE2, or --{} and FILE1, not {} operand{}",
                kSecondOpinion, operands, operands == 1 ? "" : "s");
  }
  if (given.has(kSecondOpinion)) return ask_second_opinion(given, images[0]);
  images[1] = TRY(image_argument(given, given.operands()[1], kSecondFormat));
  Caches caches;
  const auto first = TRY(open_image(images[0], caches, manners.quiet));
  const auto second = TRY(open_image(images[1], caches, manners.quiet));
  Comparison comparison(*first, *second, manners);
  comparison.run();
  return tell(comparison, images, manners);
}

}  // namespace

Command compare_command() {
  return {.name = "compare",
          .operands = "FILE1 [FILE2]",
          .summary = "tell whether two images show the same to a guest",
          .options = options,
          .notes =
              "Exit status: 0 identical, 1 different, 2 an image cannot be opened (or there is "
              "no second\nopinion), 3 an image does not tell where its bytes are, 4 they "
              "cannot be read.\n",
          .usage_status = kCannotOpen,
          .error_status = kCannotOpen,
          .run = run};
}

}  // namespace underlay::img
