#include "formats/qcow/qcow.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "formats/file_name.h"
#include "formats/qcow/qcow_reader.h"

namespace underlay {
namespace qcow {
namespace {

Result<std::optional<ParentLink>> backing_file(const Header& header, const Source& file) {
  if (header.backing_file_offset == 0) return std::nullopt;
  std::string name = TRY(read_backing_name(header, file));
  TRY(refuse_protocol("backing file", name));
  // Version 1 has no field for its format.
  ParentLink link;
  link.names.push_back(std::move(name));
  return link;
}

Result<void> check_l1_present(const Header& header, const Source& file) {
  if (range_within(header.l1_table_offset, header.l1_bytes(), file.size())) return {};
  return in_file(fail(ErrorKind::kTruncated,
                      "the L1 table has {} bytes at {}: it ends beyond the end of the file, which "
                      "has {} bytes; the file is truncated or damaged",
                      header.l1_bytes(), header.l1_table_offset, file.size()),
                 file.name(), header.l1_table_offset);
}

// Is it a header but for one byte of its magic?
bool resembles_qcow(ByteSpan head) {
  if (head.size() < kHeaderBytes || load_be<uint32_t>(head, 4) != kVersion) return false;
  const auto wrong =
      std::inner_product(kMagic.begin(), kMagic.end(), head.begin(), 0, std::plus<>(),
                         [](std::byte wanted, std::byte found) { return wanted == found ? 0 : 1; });
  const auto cluster_bits = load_be<uint8_t>(head, 32);
  const auto l2_bits = load_be<uint8_t>(head, 33);
  return wrong == 1 && cluster_bits >= kMinClusterBits && cluster_bits <= kMaxClusterBits &&
         l2_bits >= kMinL2Bits && l2_bits <= kMaxL2Bits;
}

}  // namespace

Result<std::string> read_backing_name(const Header& header, const Source& file) {
  if (!range_within(header.backing_file_offset, header.backing_file_size, file.size())) {
    return in_file(fail(ErrorKind::kTruncated,
                        "the backing file name ({} bytes) lies beyond the end of the file, which "
                        "has {} bytes: it is truncated",
                        header.backing_file_size, file.size()),
                   file.name(), header.backing_file_offset);
  }
  std::string name(header.backing_file_size, '\0');
  TRY(file.read_at(header.backing_file_offset, std::as_writable_bytes(std::span(name))));
  return name;
}

}  // namespace qcow

ProbeResult probe_qcow(const ProbeInput& input) {
  using namespace qcow;
  if (resembles_qcow(input.head)) {
    return {.verdict = ProbeVerdict::kDamaged,
            .reason = "the header is one of qcow version 1, but for one byte of its magic"};
  }
  const bool is_qcow = input.head.size() >= 8 &&
                       std::equal(kMagic.begin(), kMagic.end(), input.head.begin()) &&
                       load_be<uint32_t>(input.head, 4) == kVersion;
  if (!is_qcow) return {};
  if (input.head.size() >= kHeaderBytes) return {.verdict = ProbeVerdict::kYes, .reason = {}};
  return {.verdict = ProbeVerdict::kDamaged,
          .reason = fmt::format("the magic and version 1 are right, but the file has only {} bytes",
                                input.size)};
}

Result<std::unique_ptr<Reader>> open_qcow(const ImageToOpen& image) {
  using namespace qcow;
  const Source& file = *image.source;
  std::vector<std::byte> head(std::min<uint64_t>(kHeaderBytes, file.size()));
  TRY(file.read_at(0, head));
  const Header header = TRY(parse_header(head));
  TRY(check_l1_present(header, file));
  auto parent = TRY(backing_file(header, file));
  auto reader = std::make_unique<QcowReader>(image.source, header, std::move(parent), image.caches);
  TRY(reader->check_tables());
  const libyal::Library* library = TRY(libyal::libqcow());
  TRY(reader->open_library(*library));
  return reader;
}

}  // namespace underlay
