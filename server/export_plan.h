// What the operator says of each export, and the exports that come of it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/export.h"
#include "server/options.h"

namespace underlay {

// Two plans that are equal open the same file in the same way.
struct ExportPlan {
  std::string name;
  std::string path;  // the image
  OpenOptions open;
  std::string description;
  std::vector<std::string> bitmaps;  // names
};
bool operator==(const ExportPlan& a, const ExportPlan& b);

// What the command line says of all images, beside what it says of one.
OpenOptions with_common_options(OpenOptions open, const Options& options);

// One for each of options.exports.
std::vector<ExportPlan> export_plans(const Options& options);

// `service`: ExportCatalog::service_for(). Logs what is to be said of the image. May block. `files`
// and `caches` outlive the export.
Result<std::shared_ptr<Export>> open_export(const ExportPlan& plan, ExportService service,
                                            const NamedFiles& files, Caches& caches, Log& log);

}  // namespace underlay
