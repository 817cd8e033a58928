#include "formats/qcow/qcow_describe.h"

#include <algorithm>

#include "formats/file_name.h"
#include "formats/inspection/image_facts.h"
#include "formats/qcow/qcow.h"
#include "formats/qcow/qcow_layout.h"

namespace underlay {
namespace qcow {
namespace {

using Kind = Finding::Kind;

// False when a rule is broken that everything else depends on.
bool find_in_header(const Header& header, std::vector<Finding>& findings) {
  for (const HeaderRule& rule : header_rules()) {
    const auto checked = rule.check(header);
    if (checked) continue;
    findings.push_back(finding_of(Kind::kCorruption, std::string(rule.name), checked.error()));
    if (rule.is_basis) return false;
  }
  return true;
}

void find_in_name(const Header& header, const std::string& name, std::vector<Finding>& findings) {
  if (names_protocol(name)) {
    findings.push_back({.kind = Kind::kCorruption,
                        .code = "backing-file-protocol",
                        .message = fmt::format("names the backing file \"{}\": what precedes the "
                                               "colon is a protocol, and an image's protocols are "
                                               "never followed",
                                               printable(name, 200)),
                        .offset = header.backing_file_offset});
  }
  findings.push_back(
      {.kind = Kind::kNotice,
       .code = "backing-format-unstated",
       .message = fmt::format("names the backing file \"{}\", and version 1 cannot say of which "
                              "format it is: guessing would trust what a guest may have written",
                              printable(name, 200)),
       .offset = header.backing_file_offset});
}

void take_backing_name(const Source& file, const Header& header, ImageFacts& facts) {
  if (header.backing_file_offset == 0 || header.backing_file_size > kMaxBackingNameBytes) return;
  auto name = read_backing_name(header, file);
  if (!name) {
    facts.findings.push_back(finding_of(Kind::kCorruption, "backing-file-name", name.error()));
    return;
  }
  facts.backing_filename = *std::move(name);
  facts.names.push_back({.role = "backing file", .name = facts.backing_filename});
  find_in_name(header, facts.backing_filename, facts.findings);
}

}  // namespace
}  // namespace qcow

Result<ImageFacts> describe_qcow(const FileToInspect& file) {
  const Source& source = *file.source;
  std::vector<std::byte> head(std::min<uint64_t>(qcow::kHeaderBytes, source.size()));
  TRY(source.read_at(0, head));
  const qcow::Header header = TRY(qcow::load_header(head));

  ImageFacts facts;
  facts.virtual_size = header.size;
  facts.encrypted = header.crypt_method != 0;
  facts.specific["version"] = qcow::kVersion;
  if (!qcow::find_in_header(header, facts.findings)) return facts;
  facts.cluster_size = header.cluster_size();
  facts.specific["l2-entries"] = header.l2_entries();
  qcow::take_backing_name(source, header, facts);
  if (!range_within(header.l1_table_offset, header.l1_bytes(), source.size())) {
    facts.findings.push_back(
        {.kind = Finding::Kind::kCorruption,
         .code = "l1-beyond-end",
         .message = fmt::format("the L1 table has {} bytes at {}: it ends beyond the end of the "
                                "file, which has {} bytes",
                                header.l1_bytes(), header.l1_table_offset, source.size()),
         .offset = header.l1_table_offset});
  }
  return facts;
}

}  // namespace underlay
