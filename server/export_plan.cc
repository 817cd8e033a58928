#include "server/export_plan.h"

#include <algorithm>
#include <tuple>

#include "io/http/remote_name.h"
#include "server/entry_fields.h"

namespace underlay {
namespace {

auto fields_of(const SecretFile& secret) { return std::tie(secret.id, secret.path, secret.base64); }

bool same(const ImageOptions& a, const ImageOptions& b) {
  const auto fields = [](const ImageOptions& image) {
    return std::tie(image.snapshot, image.vhd_size, image.encrypt_format, image.key_secret);
  };
  if (fields(a) != fields(b) || a.key.has_value() != b.key.has_value()) return false;
  return !a.key || fields_of(*a.key) == fields_of(*b.key);
}

bool same(const OpenOptions& a, const OpenOptions& b) {
  const auto fields = [](const OpenOptions& open) {
    return std::tie(open.format, open.backing_format, open.start, open.reader, open.sharing);
  };
  const auto same_parent = [](const ParentPath& left, const ParentPath& right) {
    return std::tie(left.child, left.path) == std::tie(right.child, right.path);
  };
  return fields(a) == fields(b) && same(a.image, b.image) && same(a.backing, b.backing) &&
         std::ranges::equal(a.parents, b.parents, same_parent);
}

Result<std::vector<ExportedBitmap>> find_bitmaps(const ExportPlan& plan, const Disk& disk) {
  std::vector<ExportedBitmap> found;
  for (const std::string& name : plan.bitmaps) {
    found.push_back({.name = name, .bitmap = nullptr});
    found.back().bitmap = TRY(find_dirty_bitmap(disk, name));
  }
  return found;
}

}  // namespace

bool operator==(const ExportPlan& a, const ExportPlan& b) {
  const auto fields = [](const ExportPlan& plan) {
    return std::tie(plan.name, plan.path, plan.description, plan.bitmaps);
  };
  return fields(a) == fields(b) && same(a.open, b.open);
}

OpenOptions with_common_options(OpenOptions open, const Options& options) {
  open.start = options.offset;
  open.parents = options.parents;
  open.reader = options.reader;
  if (options.sharing == FileSharing::kAnyWriter) open.sharing = options.sharing;
  return open;
}

std::vector<ExportPlan> export_plans(const Options& options) {
  std::vector<ExportPlan> plans;
  for (const ExportOption& wanted : options.exports) {
    plans.push_back({.name = wanted.name,
                     .path = wanted.path,
                     .open = with_common_options(wanted.open, options),
                     .description = options.description,
                     .bitmaps = options.bitmaps});
  }
  return plans;
}

Result<std::shared_ptr<Export>> open_export(const ExportPlan& plan, ExportService service,
                                            const NamedFiles& files, Caches& caches, Log& log) {
  OpenedDisk opened = TRY(open_disk(plan.path, plan.open, files, caches));
  for (const std::string& warning : opened.warnings) {
    log.warn(warning, EntryFields().exported(plan.name).file(shown_name(plan.path)));
  }
  auto bitmaps = TRY(find_bitmaps(plan, *opened.disk));
  return std::make_shared<Export>(plan.name, plan.description, std::move(opened.disk),
                                  plan.open.image.snapshot.value_or(""), std::move(bitmaps),
                                  std::move(service));
}

}  // namespace underlay
