// Sizes out of proportion: images that fill a disk, a memory or a day.
#pragma once

#include "formats/inspection/image_facts.h"
#include "tools/img/audit_report.h"
#include "tools/img/image_argument.h"

namespace underlay::img {

void audit_sizes(const LoneImage& image, const ImageFacts& facts, AuditReport& report);

}  // namespace underlay::img
