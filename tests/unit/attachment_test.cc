// What an export must be to be put under a record's device.
#include "tools/thin/attachment.h"

#include <doctest/doctest.h>
#include <linux/nbd.h>

namespace underlay::thin {
namespace {

ImageRecord local_record() {
  ImageRecord image;
  image.location = "/image.qcow2";
  image.size = 1 << 20;
  image.files = {{.path = "/image.qcow2", .size = 1, .mtime_ns = 1}};
  return image;
}

DialedExport dialed_of(const ImageRecord& image) {
  DialedExport dialed;
  dialed.size_bytes = image.size;
  dialed.transmission_flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_CAN_MULTI_CONN;
  return dialed;
}

bool is_refused_with(const Result<void>& result, const char* text) {
  return !result && result.error().to_string().find(text) != std::string::npos;
}

TEST_CASE("an export that is what the record says is taken") {
  const ImageRecord image = local_record();
  CHECK(check_export(image, dialed_of(image)));
}

TEST_CASE("an export of another size is refused: other bytes would appear under a volume") {
  const ImageRecord image = local_record();
  DialedExport dialed = dialed_of(image);
  dialed.size_bytes += 512;
  CHECK(is_refused_with(check_export(image, dialed), "1049088 bytes, and the record 1048576"));
}

TEST_CASE("our own server must say that it is read-only; another need not") {
  ImageRecord image = local_record();
  DialedExport dialed = dialed_of(image);
  dialed.transmission_flags = NBD_FLAG_HAS_FLAGS;
  CHECK(is_refused_with(check_export(image, dialed), "read-only"));
  image.files.clear();
  image.location = "nbd://host/export";
  CHECK(check_export(image, dialed));
}

TEST_CASE("more than one connection needs a server that offers it") {
  ImageRecord image = local_record();
  image.connections = 2;
  DialedExport dialed = dialed_of(image);
  CHECK(check_export(image, dialed));
  dialed.transmission_flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY;
  CHECK(is_refused_with(check_export(image, dialed), "use --connections 1"));
}

TEST_CASE("an export whose end the kernel would cut off is refused") {
  DialedExport dialed;
  for (const uint64_t size : {uint64_t{0}, uint64_t{511}, uint64_t{513}}) {
    dialed.size_bytes = size;
    CHECK(is_refused_with(check_for_kernel("nbd://host", dialed), "multiple of 512"));
  }
  dialed.size_bytes = 512;
  CHECK(check_for_kernel("nbd://host", dialed));
}

TEST_CASE("blocks that the kernel cannot have, or that do not fill the export, are refused") {
  DialedExport dialed;
  dialed.size_bytes = 512 * 9;
  for (const uint32_t block : {0u, 3u, 8192u}) {
    dialed.min_block = block;
    CHECK(is_refused_with(check_for_kernel("nbd://host", dialed), "minimum block size"));
  }
  dialed.min_block = 4096;
  CHECK(is_refused_with(check_for_kernel("nbd://host", dialed), "no multiple of its"));
  dialed.size_bytes = 4096 * 9;
  CHECK(check_for_kernel("nbd://host", dialed));
}

}  // namespace
}  // namespace underlay::thin
