#include "formats/vmdk/vmdk_check.h"

#include "formats/vmdk/vmdk_extent_check.h"
#include "formats/vmdk/vmdk_extent_files.h"
#include "formats/vmdk/vmdk_head.h"

namespace underlay {
namespace {

class VmdkCheck {
 public:
  VmdkCheck(const FileToInspect& file, CheckReport& report)
      : file_(file), report_(report), files_(file.files, file.path, *file.source) {}

  Result<void> run() {
    const VmdkHead head = TRY(read_vmdk_head(*file_.source));
    for (const Finding& finding : head.findings) report_.add(finding);
    progress_.total = head.sectors();
    if (head.descriptor) check_cid(*head.descriptor);
    if (head.descriptor && !head.has_own_extent()) return check_named_extents(*head.descriptor);
    if (!head.extent) return {};
    const VmdkExtentToCheck extent{
        .source = *file_.source, .file = *head.extent, .sectors = head.sectors(), .is_image = true};
    report_.totals.image_end_offset = TRY(check_vmdk_extent(extent, report_, progress_));
    return {};
  }

 private:
  void check_cid(const VmdkDescriptor& descriptor) {
    if (descriptor.cid) return;
    report_.add({.kind = Finding::Kind::kNotice,
                 .code = "cid-missing",
                 .message =
                     "descriptor has no CID: a child cannot tell whether this is its parent, "
                     "and other programs refuse the image"});
  }

  Result<void> check_named_extents(const VmdkDescriptor& descriptor) {
    for (const VmdkExtentLine& line : descriptor.extents) {
      if (line.has_file()) TRY(check_named_extent(line));
      progress_.begin_next(line.sectors);
      TRY(report_.progress(progress_.done, progress_.total));
    }
    return {};
  }

  Result<void> check_named_extent(const VmdkExtentLine& line) {
    const auto source = files_.open(line);
    if (!source) {
      report_.add(
          "extent-file",
          with_context(source.error(), fmt::format("descriptor line {}: ", line.line)).value());
      return {};
    }
    if (line.kind == VmdkExtentLine::Kind::kFlat) {
      const auto good = check_vmdk_flat_extent(**source, line);
      if (!good) report_.add("extent-beyond-end", good.error());
      return {};
    }
    const auto sparse = read_vmdk_sparse_file(**source);
    if (!sparse) {
      report_.add(std::string(vmdk_header_code(sparse.error())), sparse.error());
      return {};
    }
    const VmdkExtentToCheck extent{.source = **source, .file = *sparse, .sectors = line.sectors};
    TRY(check_vmdk_extent(extent, report_, progress_));
    return {};
  }

  const FileToInspect& file_;
  CheckReport& report_;
  VmdkExtentFiles files_;
  VmdkCheckProgress progress_;
};

}  // namespace

Result<void> check_vmdk(const FileToInspect& file, CheckReport& report) {
  return VmdkCheck(file, report).run();
}

}  // namespace underlay
