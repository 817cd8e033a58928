// Where the names in an image lead, found without opening what they lead to.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/inspection/image_facts.h"
#include "tools/img/audit_report.h"
#include "tools/img/image_argument.h"

namespace underlay::img {

// For an opening of the image that is to open nothing else: every file that it names is missing.
class MissingFiles final : public NamedFiles {
 public:
  Result<OpenedFile> open(const std::string& namer, std::string_view name) const override;

  // What was asked for, in this order.
  const std::vector<std::string>& asked() const { return asked_; }

 private:
  mutable std::vector<std::string> asked_;
};

struct NamesToAudit {
  const std::vector<NameInImage>& names;
  // What the server asks for first, when it was found out: the names of a parent, in its order.
  const std::vector<std::string>& asked;
  // Of a parent whose format the image does not state: as the operator says; "" when he does not.
  const std::string& parent_format;
};

// Adds what is in the way of following the names, and each name as a touch.
void audit_names(const LoneImage& image, bool is_export, const NamesToAudit& names,
                 AuditReport& report);

}  // namespace underlay::img
