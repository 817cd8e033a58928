// Any bytes as a VMDK descriptor: parsing it must keep the contracts of
// formats/vmdk/vmdk_descriptor.h, and looking into it must say the same. Aborts when it does not.
#include <algorithm>

#include "formats/vmdk/vmdk_descriptor.h"
#include "formats/vmdk/vmdk_layout.h"
#include "fuzz/rules.h"

namespace underlay {
namespace {

void check_extents(const VmdkDescriptor& descriptor) {
  require(!descriptor.extents.empty() && descriptor.extents.size() <= kVmdkMaxExtents,
          "a disk has one extent to kVmdkMaxExtents");
  uint64_t sectors = 0;
  for (const VmdkExtentLine& extent : descriptor.extents) {
    require(extent.is_understood, "an extent that is served is understood");
    require(extent.sectors > 0 && range_within(sectors, extent.sectors, kVmdkMaxSectors),
            "all extents together have at most kVmdkMaxSectors");
    sectors += extent.sectors;
    require(range_within(extent.offset, extent.sectors, kVmdkMaxSectors),
            "an extent ends within kVmdkMaxSectors");
    require(!extent.has_file() || !extent.file.name.empty(), "an extent's file has a name");
    require(extent.file.name.find('\0') == std::string::npos, "a name has no NUL");
  }
}

// What is told of a descriptor must be what it is served as.
void check_agreement(const VmdkDescriptor& served, const VmdkDescriptor& told) {
  require(served.create_type == told.create_type && served.version == told.version &&
              served.encoding == told.encoding && served.cid == told.cid &&
              served.parent_cid == told.parent_cid,
          "what is served is what is told");
  require(served.parent_file_name_hint.name == told.parent_file_name_hint.name,
          "the parent is told by the name that is opened");
  require(std::equal(served.extents.begin(), served.extents.end(), told.extents.begin(),
                     told.extents.end(),
                     [](const VmdkExtentLine& a, const VmdkExtentLine& b) {
                       return a.line == b.line && a.access == b.access && a.kind == b.kind &&
                              a.sectors == b.sectors && a.file.name == b.file.name &&
                              a.offset == b.offset;
                     }),
          "all extents are told");
}

void run(ByteSpan bytes) {
  const std::string_view text = as_text(bytes);
  (void)vmdk_descriptor_signs(text);
  std::vector<Defect> problems;
  const VmdkDescriptor told = describe_vmdk_descriptor(text, problems);
  require(problems.size() <= kVmdkMaxProblems, "a bounded number of problems is told");
  for (const Defect& problem : problems) check_error(problem.error);
  const auto served = parse_vmdk_descriptor(text);
  require(served.has_value() == problems.empty(), "what is refused has a problem, and no other");
  if (!served) return check_error(served.error());
  check_extents(*served);
  require(!served->parent_cid || !served->parent_file_name_hint.name.empty(),
          "a parent has a name");
  check_agreement(*served, told);
}

}  // namespace
}  // namespace underlay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  underlay::run(std::as_bytes(std::span(data, size)));
  return 0;
}
