#include "fuzz/inspection_rules.h"

#include <cerrno>

#include "fuzz/rules.h"

namespace underlay {
namespace {

// Enough for every kind of field, not for every entry of a table of megabytes.
constexpr int kMaxFields = 2000;
constexpr int kMaxSteps = 20'000;  // of a check

void check_text(const std::string& text, const char* rule) {
  require(!text.empty() && printable(text, text.size()) == text, rule);
}

void check_finding(const Finding& finding) {
  check_text(finding.message, "a finding is one printable line");
  require(!finding.code.empty() &&
              finding.code.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") ==
                  std::string::npos,
          "a finding's code is in kebab case");
}

// As the tools write it: text of the image may be no UTF-8.
void check_json(const nlohmann::ordered_json& value) {
  using Handler = nlohmann::ordered_json::error_handler_t;
  (void)value.dump(-1, ' ', /*ensure_ascii=*/false, Handler::replace);
}

// Of all that is dumped: where it lies, and that it can be written down.
class CheckingSink final : public DumpSink {
 public:
  explicit CheckingSink(uint64_t file_size) : file_size_(file_size) {}

  Result<void> begin(std::string_view name, uint64_t offset, uint64_t length) override {
    require(!name.empty(), "a structure has a name");
    begun_ = true;
    begin_ = offset;
    (void)length;
    return count();
  }

  Result<void> field(std::string_view name, uint64_t offset, uint64_t length,
                     const nlohmann::ordered_json& value, std::string_view) override {
    require(begun_ && !name.empty(), "a field has a structure and a name");
    require(offset >= begin_ && range_within(offset, length, file_size_),
            "a field lies in the file, behind its structure's first byte");
    check_json(value);
    return count();
  }

  bool stopped() const { return fields_ >= kMaxFields; }

 private:
  Result<void> count() {
    if (++fields_ < kMaxFields) return {};
    return fail_errno(EPIPE, "nobody reads");
  }

  uint64_t file_size_;
  bool begun_ = false;
  uint64_t begin_ = 0;
  int fields_ = 0;
};

void check_facts(const ImageFacts& facts) {
  for (const Finding& finding : facts.findings) check_finding(finding);
  for (const NameInImage& name : facts.names) {
    require(!name.role.empty(), "a name in an image has a role");
  }
  check_json(facts.specific);
}

}  // namespace

Inspected inspect(const Inspector& inspector, const FileToInspect& file) {
  Inspected inspected;
  const uint64_t size = file.source->size();
  if (auto facts = inspector.describe(file)) {
    check_facts(*facts);
    inspected.facts = *std::move(facts);
  } else {
    check_error(facts.error());
  }
  if (inspector.check != nullptr) {
    int steps = 0;
    CheckReport report(check_finding, [&](uint64_t done, uint64_t total) {
      require(done <= total, "progress does not pass its end");
      return ++steps < kMaxSteps;
    });
    const auto done = inspector.check(file, report);
    if (!done) check_error(done.error());
    const bool stopped = steps >= kMaxSteps;
    require(!stopped || !done, "a check ends when the operator wants it to");
    inspected.checked = done.has_value() || stopped;
    inspected.clean = done.has_value() && report.count(Finding::Kind::kCorruption) == 0 &&
                      report.count(Finding::Kind::kFailure) == 0;
  }
  CheckingSink sink(size);
  const auto dumped = inspector.dump(file, sink);
  if (!dumped) check_error(dumped.error());
  require(!sink.stopped() || !dumped, "a dump ends when nobody reads");
  inspected.dumped = dumped.has_value() || sink.stopped();
  return inspected;
}

}  // namespace underlay
