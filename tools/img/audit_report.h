// What underlay-img audit has found.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace underlay::img {

enum class AuditLevel : uint8_t {
  kWarn,    // it smells
  kRefuse,  // the server refuses the image, or would serve something else than is meant
};

struct AuditFinding {
  AuditLevel level = AuditLevel::kWarn;
  std::string code;                  // names the rule, in kebab case
  std::string message;               // one line, without the image's name
  std::optional<uint64_t> offset{};  // byte in the image's file
};

// A file (or what the image takes for one) that is opened when the image is served. Text of the
// image.
struct AuditTouch {
  std::string role;      // NameInImage::role
  std::string name;      // as written
  std::string format;    // what it is, as the image says, or the operator; "" when nobody does
  std::string resolved;  // where it leads, "" when that is not known
  bool inside = false;   // beneath the image's folder, or in its archive
};

class AuditReport {
 public:
  void refuse(std::string code, std::string message, std::optional<uint64_t> offset = {}) {
    findings_.push_back({AuditLevel::kRefuse, std::move(code), std::move(message), offset});
  }
  void warn(std::string code, std::string message, std::optional<uint64_t> offset = {}) {
    findings_.push_back({AuditLevel::kWarn, std::move(code), std::move(message), offset});
  }
  void add_touch(AuditTouch touch) { touches_.push_back(std::move(touch)); }

  bool refuses() const {
    return std::any_of(findings_.begin(), findings_.end(), [](const AuditFinding& finding) {
      return finding.level == AuditLevel::kRefuse;
    });
  }
  const std::vector<AuditFinding>& findings() const { return findings_; }
  const std::vector<AuditTouch>& touches() const { return touches_; }

 private:
  std::vector<AuditFinding> findings_;
  std::vector<AuditTouch> touches_;
};

}  // namespace underlay::img
