#include "formats/vmdk/vmdk_writer.h"

#include <algorithm>

#include "formats/vmdk/vmdk_sparse_writer.h"
#include "formats/vmdk/vmdk_stream_writer.h"
#include "formats/vmdk/vmdk_write_head.h"

namespace underlay {
namespace {

constexpr uint64_t kMaxDirectoryBytes = 32 << 20;  // in memory
constexpr size_t kMaxTextBytes = 255;              // of a file name

// Quotes and line ends would end what stands in the descriptor.
Result<void> check_text(std::string_view what, const std::string& text) {
  const bool is_plain = printable(text) == text && text.find('"') == std::string::npos;
  if (is_plain && !text.empty() && text.size() <= kMaxTextBytes) return {};
  return fail(
      ErrorKind::kUsage,
      "{} \"{}\" cannot stand in a vmdk's descriptor: 1 to {} bytes of UTF-8 without quotes "
      "and control characters can",
      what, printable(text, 80), kMaxTextBytes);
}

}  // namespace

Result<std::unique_ptr<ImageWriter>> write_vmdk(const DiskToWrite& disk, const VmdkToWrite& image,
                                                Sink& sink) {
  if (disk.size == 0) return fail(ErrorKind::kUsage, "a vmdk cannot hold a disk of 0 bytes");
  const uint64_t tables = div_round_up(disk.size, kVmdkWrittenTableSpan);
  if (tables > kMaxDirectoryBytes / 4) {
    return fail(ErrorKind::kUsage,
                "a disk of {} bytes is too large for a vmdk, which holds at most {} here",
                disk.size, kMaxDirectoryBytes / 4 * kVmdkWrittenTableSpan);
  }
  TRY(check_text("the file name", image.file_name));
  TRY(check_text("-o hwversion", image.hardware_version));
  if (image.stream_optimized) return write_vmdk_stream(disk, image, sink);
  return write_vmdk_sparse(disk, image, sink);
}

}  // namespace underlay
