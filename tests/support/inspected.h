// Images that lie in memory, looked into by an Inspector.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/inspection/image_facts.h"
#include "formats/inspection/inspector.h"
#include "io/memory_source.h"

namespace underlay::test {

// No image's names are to be followed: who asks fails the test.
class NothingNamed final : public NamedFiles {
 public:
  Result<OpenedFile> open(const std::string& namer, std::string_view name) const override {
    CHECK_MESSAGE(false, "opens the file that the image names: ", std::string(name));
    return in_file(fail(ErrorKind::kDenied, "not to be opened"), namer);
  }
};

// What an image is inspected with.
struct Inspection {
  Caches caches;
  NothingNamed nothing;
  ImageOptions options;
  FileToInspect file;

  // `named`: the files that it may name; null: none.
  explicit Inspection(std::shared_ptr<const Source> source, const NamedFiles* named = nullptr)
      : file{.source = std::move(source),
             .path = "image",
             .files = named == nullptr ? nothing : *named,
             .caches = caches,
             .options = options} {}
  explicit Inspection(std::vector<std::byte> bytes)
      : Inspection(std::make_shared<MemorySource>(std::move(bytes))) {}
};

// What a check told.
struct Checked {
  Result<void> done{};
  std::vector<Finding> findings;
  std::string codes;  // marked_codes() of them
  CheckTotals totals;
  uint64_t corruptions = 0;
  uint64_t leaks = 0;
  uint64_t failures = 0;
};

// The codes of all findings, in their order, with a space between them: "grain-twice (notice)
// failure!".
inline std::string marked_codes(const std::vector<Finding>& findings) {
  std::string codes;
  for (const Finding& finding : findings) {
    if (!codes.empty()) codes += ' ';
    switch (finding.kind) {
      case Finding::Kind::kCorruption:
      case Finding::Kind::kLeak:
        codes += finding.code;
        break;
      case Finding::Kind::kFailure:
        codes += finding.code + '!';
        break;
      case Finding::Kind::kNotice:
        codes += '(' + finding.code + ')';
        break;
    }
  }
  return codes;
}

// Runs check(report). `stops`: the operator breaks off at once.
template <class Check>
Checked checked(const Check& check, bool stops = false) {
  Checked result;
  CheckReport report([&](const Finding& finding) { result.findings.push_back(finding); },
                     [&](uint64_t done, uint64_t total) {
                       CHECK(done <= total);
                       return !stops;
                     });
  result.done = check(report);
  result.codes = marked_codes(result.findings);
  result.totals = report.totals;
  result.corruptions = report.count(Finding::Kind::kCorruption);
  result.leaks = report.count(Finding::Kind::kLeak);
  result.failures = report.count(Finding::Kind::kFailure);
  return result;
}
// The same of a function that takes FileToInspect and CheckReport.
template <class Check>
Checked checked_by(const Inspection& inspection, const Check& check, bool stops = false) {
  return checked([&](CheckReport& report) { return check(inspection.file, report); }, stops);
}

inline Result<ImageFacts> describe_as(std::string_view format, std::shared_ptr<const Source> source,
                                      const ImageOptions& options = {}) {
  Inspection inspection(std::move(source));
  inspection.options = options;
  return inspector_of(format).describe(inspection.file);
}
inline Result<ImageFacts> describe_as(std::string_view format, std::vector<std::byte> image,
                                      const ImageOptions& options = {}) {
  return describe_as(format, std::make_shared<MemorySource>(std::move(image)), options);
}

// The codes of all findings of a kind, in their order, with a space between them.
inline std::string codes(const std::vector<Finding>& findings, Finding::Kind kind) {
  std::string codes;
  for (const Finding& finding : findings) {
    if (finding.kind == kind) codes += (codes.empty() ? "" : " ") + finding.code;
  }
  return codes;
}
// Why the image is not served, and what else is said of it.
inline std::string refusals(const Result<ImageFacts>& facts) {
  return codes(facts.value().findings, Finding::Kind::kCorruption);
}
inline std::string notices(const Result<ImageFacts>& facts) {
  return codes(facts.value().findings, Finding::Kind::kNotice);
}

inline std::vector<std::string> codes_of(const std::vector<Finding>& findings) {
  std::vector<std::string> codes;
  for (const Finding& finding : findings) codes.push_back(finding.code);
  return codes;
}

// The finding of that code; checked to be there.
inline Finding finding_in(const std::vector<Finding>& findings, std::string_view code) {
  const auto found = std::find_if(findings.begin(), findings.end(),
                                  [&](const Finding& finding) { return finding.code == code; });
  if (found != findings.end()) return *found;
  FAIL_CHECK("there is no finding ", std::string(code));
  return {};
}

inline Checked check_as(std::string_view format, std::shared_ptr<const Source> source,
                        const ImageOptions& options = {}) {
  Inspection inspection(std::move(source));
  inspection.options = options;
  return checked_by(inspection, inspector_of(format).check);
}
inline Checked check_as(std::string_view format, std::vector<std::byte> image,
                        const ImageOptions& options = {}) {
  return check_as(format, std::make_shared<MemorySource>(std::move(image)), options);
}

}  // namespace underlay::test
