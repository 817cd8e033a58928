#include "tools/img/audit.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "formats/inspection/image_facts.h"
#include "formats/inspection/inspector.h"
#include "tools/img/audit_content.h"
#include "tools/img/audit_names.h"
#include "tools/img/audit_sizes.h"
#include "tools/img/image_argument.h"
#include "tools/img/say.h"

namespace underlay::img {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMustNotBeServed = 2;

std::vector<Option> options() {
  std::vector<Option> all = lone_image_options();
  all.push_back(output_option());
  all.push_back(quiet_option());
  return all;
}

// Without the image's path in front, which is said elsewhere.
std::string without_path(const std::string& line, const std::string& path) {
  const std::string prefix = printable(path) + ": ";
  return line.starts_with(prefix) ? line.substr(prefix.size()) : line;
}

std::string message_of(Error error) {
  error.file.clear();
  error.offset.reset();  // stands beside it
  return error.to_string();
}

class Audit {
 public:
  explicit Audit(ImageArgument argument) : argument_(std::move(argument)) {}

  // Fails when the image cannot be audited.
  Result<void> run() {
    auto opened = open_lone_image(argument_, caches_);
    if (!opened) return refuse_unopened(opened.error());
    image_ = *std::move(opened);
    format_ = image_.format->name;
    for (const std::string& warning : image_.warnings) {
      report_.warn("format-guessed", without_path(warning, image_.file.path));
    }
    audit_file_name(image_, report_);
    TRY(audit_content(image_, !argument_.open.format.empty(), report_));
    return audit_image();
  }

  const AuditReport& report() const { return report_; }
  const std::string& path() const { return argument_.path; }
  std::string_view format() const { return format_; }  // "" when it is not known

 private:
  // What makes it impossible to open the image at all is either its fault or its file's.
  Result<void> refuse_unopened(const Error& error) {
    struct stat status;
    const bool is_file = ::stat(argument_.path.c_str(), &status) != 0 || S_ISREG(status.st_mode) ||
                         S_ISBLK(status.st_mode);
    switch (error.kind) {
      case ErrorKind::kMalformed:
      case ErrorKind::kTruncated:
      case ErrorKind::kUnsupported:
      case ErrorKind::kLimit:
        if (is_file && (argument_.open.format.empty() || find_format(argument_.open.format))) {
          report_.refuse("not-served", message_of(error), error.offset);
          return {};
        }
        break;
      default:
        break;
    }
    return Failure(error);
  }

  Result<void> audit_image() {
    const FileToInspect file = file_to_inspect(image_.file, argument_.open.image, caches_);
    const auto facts = inspector_of(image_.format->name).describe(file);
    if (!facts && facts.error().kind == ErrorKind::kIo) return Failure(facts.error());
    if (!facts) {
      report_.refuse("not-served", message_of(facts.error()), facts.error().offset);
      return {};
    }
    take_findings(*facts);
    audit_sizes(image_, *facts, report_);
    TRY(open_as_the_server());
    audit_names(image_, argument_.is_export(),
                {.names = facts->names,
                 .asked = missing_.asked(),
                 .parent_format = argument_.open.backing_format},
                report_);
    if (refusal_ && !report_.refuses()) {
      report_.refuse("not-served", message_of(*refusal_), refusal_->offset);
    }
    return {};
  }

  void take_findings(const ImageFacts& facts) {
    for (const Finding& finding : facts.findings) {
      if (finding.code == "backing-format-unstated") {
        take_unstated_format(finding);
      } else if (finding.kind == Finding::Kind::kNotice || finding.kind == Finding::Kind::kLeak) {
        report_.warn(finding.code, finding.message, finding.offset);
      } else {
        report_.refuse(finding.code, finding.message, finding.offset);
      }
    }
    if (facts.encrypted && !is_told("encrypted")) {
      report_.warn("encrypted", "its data is encrypted");
    }
    if (facts.dirty && !is_told("dirty")) {
      report_.warn("dirty",
                   "it was not closed by its writer: what was written last may be missing");
    }
  }

  // Then the server looks into the parent, which is not done here: it serves some, and refuses what
  // could be raw or names further files.
  void take_unstated_format(const Finding& finding) {
    if (!argument_.open.backing_format.empty()) return;
    report_.refuse(
        finding.code,
        finding.message + "; --image-opts ...,backing.driver=FORMAT states it for one run",
        finding.offset);
  }

  // The readers have the last word. What they want of other files is not there.
  Result<void> open_as_the_server() {
    const NamedFiles& files =
        image_.files ? *image_.files : static_cast<const NamedFiles&>(missing_);
    auto disk = open_disk(image_.file, stated_options(), files, caches_);
    if (disk) {
      for (const std::string& warning : disk->warnings) take_warning(warning);
    } else if (disk.error().kind == ErrorKind::kIo && missing_.asked().empty()) {
      return Failure(disk.error());
    } else if (missing_.asked().empty()) {
      refusal_ = disk.error();
    }
    return {};
  }

  OpenOptions stated_options() const {
    OpenOptions options = argument_.open;
    options.format = image_.format->name;
    return options;
  }

  bool is_told(std::string_view code) const {
    const auto& told = report_.findings();
    return std::any_of(told.begin(), told.end(),
                       [&](const AuditFinding& finding) { return finding.code == code; });
  }

  // Of what it was told already, the reader may say more behind the colon.
  void take_warning(const std::string& warning) {
    const std::string line = without_path(warning, image_.file.path);
    const auto subject = [](const std::string& text) { return text.substr(0, text.find(':')); };
    const auto& told = report_.findings();
    if (std::any_of(told.begin(), told.end(), [&](const AuditFinding& finding) {
          return subject(finding.message) == subject(line);
        })) {
      return;
    }
    report_.warn("served-with-warning", line);
  }

  ImageArgument argument_;
  Caches caches_;
  LoneImage image_;
  std::string format_;
  MissingFiles missing_;
  std::optional<Error> refusal_;  // of the server, for a reason in the image itself
  AuditReport report_;
};

std::string_view name_of(AuditLevel level) {
  return level == AuditLevel::kRefuse ? "refuse" : "warn";
}

void print_human(const Audit& audit) {
  const AuditReport& report = audit.report();
  size_t refusals = 0;
  for (const AuditFinding& finding : report.findings()) {
    fmt::print("{}: {}: {}{}\n", name_of(finding.level), finding.code, printable(finding.message),
               finding.offset ? fmt::format(" (at byte {})", *finding.offset) : "");
    if (finding.level == AuditLevel::kRefuse) ++refusals;
  }
  for (const AuditTouch& touch : report.touches()) {
    fmt::print("touches: {} \"{}\"{}{}{}\n", touch.role, printable(touch.name),
               touch.format.empty() ? "" : fmt::format(" ({})", printable(touch.format)),
               touch.resolved.empty() ? "" : fmt::format(", {}", printable(touch.resolved)),
               touch.inside ? "" : ", outside");
  }
  fmt::print("{}: {} ({} to refuse it, {} to warn of)\n", printable(audit.path()),
             refusals > 0 ? "must not be served" : "may be served", refusals,
             report.findings().size() - refusals);
}

Json json_of(const AuditFinding& finding) {
  Json json = {
      {"level", name_of(finding.level)}, {"code", finding.code}, {"message", finding.message}};
  if (finding.offset) json["offset"] = *finding.offset;
  return json;
}

Json json_of(const AuditTouch& touch) {
  Json json = {{"role", touch.role}, {"name", touch.name}};
  if (!touch.format.empty()) json["format"] = touch.format;
  if (!touch.resolved.empty()) json["resolved"] = touch.resolved;
  json["inside"] = touch.inside;
  return json;
}

void print_as_json(const Audit& audit) {
  const AuditReport& report = audit.report();
  Json json = {{"version", kJsonVersion}, {"filename", audit.path()}};
  if (!audit.format().empty()) json["format"] = audit.format();
  json["verdict"] = report.refuses() ? "refuse" : "serve";
  json["findings"] = Json::array();
  for (const AuditFinding& finding : report.findings())
    json["findings"].push_back(json_of(finding));
  json["touches"] = Json::array();
  for (const AuditTouch& touch : report.touches()) json["touches"].push_back(json_of(touch));
  print_json(json);
}

Result<int> run(const Given& given) {
  const OutputFormat output = TRY(output_format(given));
  Audit audit(TRY(image_argument(given, given.operands()[0])));
  TRY(audit.run());
  if (given.has("quiet")) {
    // The exit status says it all.
  } else if (output == OutputFormat::kJson) {
    print_as_json(audit);
  } else {
    print_human(audit);
  }
  return audit.report().refuses() ? kMustNotBeServed : kDone;
}

}  // namespace

Command audit_command() {
  return {.name = "audit",
          .operands = "FILE",
          .summary = "tell whether an image may be served, and what speaks against it",
          .options = options,
          .notes =
              "No file but the image is opened. Exit status: 0 it may be served, 2 it must "
              "not, 1 it could not be audited.\n",
          .run = run};
}

}  // namespace underlay::img
