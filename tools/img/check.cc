#include "tools/img/check.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/inspection/inspector.h"
#include "tools/common/interruption.h"
#include "tools/common/progress.h"
#include "tools/img/check_findings.h"
#include "tools/img/image_argument.h"
#include "tools/img/say.h"

namespace underlay::img {
namespace {

using Kind = Finding::Kind;

// Exit statuses beside kDone and kFailed, qemu-img's.
constexpr int kCorrupt = 2;
constexpr int kLeaks = 3;
constexpr int kNothingToCheck = 63;

std::vector<Option> options() {
  std::vector<Option> all = image_options();
  all.push_back(output_option());
  all.push_back(quiet_option());
  all.push_back(progress_option());
  all.push_back({.rule = {.name = "repair",
                          .letter = 'r',
                          .takes_value = true,
                          .refusal = "is not served: images are never written to; qemu-img check "
                                     "-r repairs"},
                 .value_name = "WHAT",
                 .help = "refused: images are never written to"});
  all.push_back(cache_option());
  return all;
}

// The format's progress, in the image's bytes.
class Meter {
 public:
  Meter(bool wanted, uint64_t image_bytes) : progress_(wanted), bytes_(image_bytes) {
    progress_.begin(bytes_);
  }

  // False when the operator wants an end.
  bool show(uint64_t done, uint64_t total) {
    const double part = total == 0 ? 1 : static_cast<double>(done) / static_cast<double>(total);
    advance(static_cast<uint64_t>(part * static_cast<double>(bytes_)));
    return !is_interrupted();
  }
  // Leaves the line that shows it.
  void pause() { progress_.end(); }
  void end() {
    advance(bytes_);
    progress_.end();
  }
  void end_early() {
    progress_.end();
    if (is_interrupted()) {
      say_error(fmt::format("interrupted: {} of {} bytes checked", shown_, bytes_));
    }
  }

 private:
  void advance(uint64_t to) {
    to = std::min(to, bytes_);
    if (to < shown_) to = shown_;
    progress_.add(to - shown_);
    shown_ = to;
  }

  Progress progress_;
  uint64_t bytes_;
  uint64_t shown_ = 0;
};

// What keeps the disk from being served is corruption when the bytes are why.
void add_refusal(CheckReport& report, std::string code, const Error& error) {
  const bool is_damage = error.kind == ErrorKind::kMalformed || error.kind == ErrorKind::kTruncated;
  report.add({.kind = is_damage ? Kind::kCorruption : Kind::kFailure,
              .code = std::move(code),
              .message = error.to_string(),
              .offset = std::nullopt});
}

// What the reader of the image has against it.
std::optional<Error> refusal_of(const ImageArgument& argument, const LoneImage& image,
                                const NamedFiles& files, Caches& caches) {
  std::vector<std::string> warnings;
  const auto reader = image.format->open({.source = image.file.source,
                                          .path = image.file.path,
                                          .files = files,
                                          .caches = caches,
                                          .options = argument.open.image,
                                          .warnings = warnings});
  if (reader) return std::nullopt;
  return reader.error();
}

// That the image is damaged was told, and counts once.
void add_reader_refusal(const Error& error, CheckReport& report) {
  const bool was_told = report.count(Kind::kCorruption) + report.count(Kind::kFailure) != 0;
  if (!was_told) return add_refusal(report, "image-refused", error);
  report.add({.kind = Kind::kNotice,
              .code = "image-refused",
              .message = error.to_string(),
              .offset = std::nullopt});
}

// The disk as it would be served: what the format's check does not see (parents).
void check_chain(const ImageArgument& argument, const LoneImage& image, const NamedFiles& files,
                 Caches& caches, CheckReport& report) {
  OpenOptions options = argument.open;
  options.format = image.format->name;
  const auto opened = open_disk(image.file, options, files, caches);
  if (!opened) return add_refusal(report, "chain-refused", opened.error());
  for (const std::string& warning : opened->warnings) {
    report.add({.kind = Kind::kNotice,
                .code = "opened-with-warning",
                .message = warning,
                .offset = std::nullopt});
  }
}

void print_human(const CheckReport& report) {
  const uint64_t corruptions = report.count(Kind::kCorruption);
  const uint64_t leaks = report.count(Kind::kLeak);
  const uint64_t failures = report.count(Kind::kFailure);
  if (corruptions + leaks + failures == 0) fmt::print("No errors were found on the image.\n");
  if (corruptions != 0) {
    fmt::print(
        "\n{} errors were found on the image.\nData may be corrupted, or further writes to the "
        "image may corrupt it.\n",
        corruptions);
  }
  if (leaks != 0) {
    fmt::print(
        "\n{} leaked clusters were found on the image.\nThis means waste of disk space, but no "
        "harm to data.\n",
        leaks);
  }
  if (failures != 0) {
    fmt::print("\n{} internal errors have occurred during the check.\n", failures);
  }
  const CheckTotals& totals = report.totals;
  if (totals.total != 0 && totals.allocated != 0) {
    const auto percent = [](uint64_t part, uint64_t whole) {
      return static_cast<double>(part) * 100 / static_cast<double>(whole);
    };
    fmt::print("{}/{} = {:.2f}% allocated, {:.2f}% fragmented, {:.2f}% compressed clusters\n",
               totals.allocated, totals.total, percent(totals.allocated, totals.total),
               percent(totals.fragmented, totals.allocated),
               percent(totals.compressed, totals.allocated));
  }
  if (totals.image_end_offset.value_or(0) != 0) {
    fmt::print("Image end offset: {}\n", *totals.image_end_offset);
  }
}

// qemu-img's fields, those of them that are 0 left out as it does, and behind them ours.
void print_as_json(const std::string& operand, const Format& format, const CheckReport& report,
                   const FindingList& findings) {
  nlohmann::ordered_json document = {{"version", kJsonVersion}};
  const auto put = [&](const char* key, uint64_t value) {
    if (value != 0) document[key] = value;
  };
  const CheckTotals& totals = report.totals;
  put("image-end-offset", totals.image_end_offset.value_or(0));
  put("compressed-clusters", totals.compressed);
  put("total-clusters", totals.total);
  document["check-errors"] = report.count(Kind::kFailure);
  put("leaks", report.count(Kind::kLeak));
  put("corruptions", report.count(Kind::kCorruption));
  put("allocated-clusters", totals.allocated);
  document["filename"] = operand;
  document["format"] = format.name;
  put("fragmented-clusters", totals.fragmented);
  document["findings"] = findings.json();
  put("findings-not-listed", report.untold());
  print_json(document);
}

int status_of(const CheckReport& report) {
  if (report.count(Kind::kFailure) != 0) {
    say_error("Check failed");
    return kFailed;
  }
  if (report.count(Kind::kCorruption) != 0) return kCorrupt;
  return report.count(Kind::kLeak) != 0 ? kLeaks : kDone;
}

Result<int> run(const Given& given) {
  const OutputFormat output = TRY(output_format(given));
  const bool quiet = given.has("quiet");
  TRY(check_cache_option(given));
  const ImageArgument argument = TRY(image_argument(given, given.operands()[0]));
  Caches caches;
  const LoneImage image = TRY(open_lone_image(argument, caches));
  const Inspector& inspector = inspector_of(image.format->name);
  if (inspector.check == nullptr) {
    say_error("This image format does not support checks");
    return kNothingToCheck;
  }
  if (!quiet) say_warnings(image.warnings);

  const Confinement confinement = TRY(Confinement::create(argument.allowed, argument.open.sharing));
  const NamedFiles& outside =
      argument.is_export() ? kNoNamedFiles : static_cast<const NamedFiles&>(confinement);
  const NamedFiles& files = image.files ? *image.files : outside;
  Meter meter(given.has("progress"), image.file.source->size());
  FindingList findings(!quiet && output == OutputFormat::kHuman);
  const auto refusal = refusal_of(argument, image, files, caches);
  const std::string refused_as =
      refusal ? finding_of(Kind::kCorruption, "", *refusal).message : std::string();
  bool is_refusal_told = false;
  CheckReport report(
      [&](const Finding& finding) {
        const bool counts = finding.kind == Kind::kCorruption || finding.kind == Kind::kFailure;
        if (counts && finding.message == refused_as) is_refusal_told = true;
        if (findings.prints()) meter.pause();
        findings.add(finding);
      },
      [&](uint64_t done, uint64_t total) { return meter.show(done, total); });
  const FileToInspect file = file_to_inspect(image.file, argument.open.image, caches, files);
  const auto checked = inspector.check(file, report);
  if (!checked) {
    meter.end_early();
    return in_file(checked.error(), argument.path);
  }
  if (!refusal) {
    check_chain(argument, image, files, caches, report);
  } else if (!is_refusal_told) {
    add_reader_refusal(*refusal, report);
  }
  meter.end();
  findings.finish(report.untold());
  if (!quiet && output == OutputFormat::kHuman) print_human(report);
  if (!quiet && output == OutputFormat::kJson) {
    // As qemu-img: what was given, options and all; but no presigned URL.
    const bool is_masked = argument.path != argument.location;
    print_as_json(is_masked ? argument.path : given.operands()[0], *image.format, report, findings);
  }
  return status_of(report);
}

}  // namespace

Command check_command() {
  return {.name = "check",
          .operands = "FILE",
          .summary = "look for damage in an image's structures",
          .options = options,
          .notes =
              "Exit status: 0 clean, 1 the check failed, 2 corrupt, 3 leaked clusters but no "
              "corruption,\n63 the format has nothing to check. What is found is printed on "
              "standard error.\n",
          .run = run};
}

}  // namespace underlay::img
