// What the bytes of an image's file look like, beside what they are taken for.
#pragma once

#include <string>

#include "tools/img/audit_report.h"
#include "tools/img/image_argument.h"

namespace underlay::img {

// Signs of a second format, of formats that are not served, of archives, of partitions where none
// can be. `is_stated`: the operator said of what format it is. Fails when the file cannot be read.
Result<void> audit_content(const LoneImage& image, bool is_stated, AuditReport& report);

// Does the end of the file's name say what the file is?
void audit_file_name(const LoneImage& image, AuditReport& report);

}  // namespace underlay::img
