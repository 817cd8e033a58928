// qcow2 images that lie in memory, checked.
#pragma once

#include "formats/qcow2/qcow2_check.h"
#include "tests/support/inspected.h"
#include "tests/support/qcow2_builder.h"

namespace underlay::test {

inline Checked check_in_memory(std::shared_ptr<const Source> source,
                               uint64_t window = kQcow2CheckWindow) {
  const Inspection inspection(std::move(source));
  return checked_by(inspection, [&](const FileToInspect& file, CheckReport& report) {
    return check_qcow2_by(window, file, report);
  });
}

inline Checked check_in_memory(const Qcow2Builder& builder, uint64_t window = kQcow2CheckWindow) {
  return check_in_memory(std::make_shared<MemorySource>(builder.file), window);
}

// Beside `files`, which may hold its data file.
inline Checked check_beside(const NamedFiles& files, const Qcow2Builder& builder) {
  return checked_by(Inspection(std::make_shared<MemorySource>(builder.file), &files), check_qcow2);
}

// There is nothing to be said of it.
inline void check_clean(const Checked& checked) {
  CHECK_MESSAGE(checked.done, checked.done.error().to_string());
  for (const Finding& finding : checked.findings) {
    FAIL_CHECK("found ", finding.code, ": ", finding.message);
  }
}

// One finding of this code and kind, which counts `count` times, and no other one.
inline void check_only(const Checked& checked, std::string_view code, Finding::Kind kind,
                       uint64_t count, std::string_view words = "") {
  CHECK_MESSAGE(checked.done, checked.done.error().to_string());
  for (const Finding& finding : checked.findings) {
    CAPTURE(finding.message);
    CHECK(finding.code == code);
    CHECK(finding.kind == kind);
    CHECK(finding.message.find(words) != std::string::npos);
  }
  CHECK(!checked.findings.empty());
  CHECK(checked.corruptions == (kind == Finding::Kind::kCorruption ? count : 0));
  CHECK(checked.leaks == (kind == Finding::Kind::kLeak ? count : 0));
  CHECK(checked.failures == (kind == Finding::Kind::kFailure ? count : 0));
}

}  // namespace underlay::test
