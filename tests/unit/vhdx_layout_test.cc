#include "formats/vhdx/vhdx_layout.h"

#include <doctest/doctest.h>

#include <functional>

#include "formats/crc32c.h"
#include "tests/support/vhdx_opened.h"

namespace underlay::vhdx::test {
namespace {

constexpr std::string_view kSomeGuid = "01234567-89ab-cdef-0123-456789abcdef";

// Why an image that was changed is refused; kUsage when it is not.
ErrorKind refusal(const std::function<void(Bytes&)>& change,
                  const VhdxBuilder& builder = dynamic()) {
  Bytes image = builder.build();
  change(image);
  return open(image).error();
}
// The same after one field was set...
template <class T>
ErrorKind with_bytes(size_t at, T value) {
  return refusal([&](Bytes& image) { store_le<T>(image, at, value); });
}
template <class T>
ErrorKind with_region(size_t at, T value) {
  return refusal([&](Bytes& image) { set_in_region_tables<T>(image, at, value); });
}

TEST_CASE("crc32c: the check value of the polynomial, and a field left out") {
  Crc32c crc;
  crc.add(as_bytes("12345"));
  crc.add(as_bytes("6789"));
  CHECK(crc.value() == 0xe3069283);
  Bytes with_zeros(100, std::byte{7});
  store_le<uint32_t>(with_zeros, 30, 0);
  Bytes with_field = with_zeros;
  store_le<uint32_t>(with_field, 30, 0x12345678);
  Crc32c whole;
  whole.add(with_zeros);
  CHECK(crc32c_around(with_field, 30) == whole.value());
  Crc32c zeros;
  zeros.add_zeros(200);
  Crc32c same;
  same.add(Bytes(200));
  CHECK(zeros.value() == same.value());
}

TEST_CASE("vhdx headers: the one with the higher number counts, or the one that is whole") {
  const auto identity = [](const std::function<void(Bytes&)>& change) {
    Bytes image = dynamic().build();
    change(image);
    const Opened opened = open(image);
    return std::pair(opened.reader().identity().substr(0, 8), opened.disk->warnings.size());
  };
  const auto rename = [](Bytes& image, size_t header) {
    const Guid other = guid(kSomeGuid);
    std::copy(other.begin(), other.end(),
              image.begin() + static_cast<std::ptrdiff_t>(kHeadersAt[header] + 32));
    seal(image, kHeadersAt[header], kHeaderBytes);
  };
  CHECK(identity([&](Bytes& image) { rename(image, 0); }) ==
        std::pair(std::string("11111111"), size_t{0}));
  CHECK(identity([&](Bytes& image) { rename(image, 1); }) ==
        std::pair(std::string("01234567"), size_t{0}));
  CHECK(identity([&](Bytes& image) {
          rename(image, 0);
          store_le<uint64_t>(image, kHeadersAt[0] + 8, 3);
          seal(image, kHeadersAt[0], kHeaderBytes);
        }) == std::pair(std::string("01234567"), size_t{0}));
  for (const size_t damage : {0u, 5u, 4095u}) {
    CHECK(identity([&](Bytes& image) {
            rename(image, 0);
            image[kHeadersAt[1] + damage] ^= std::byte{1};
          }) == std::pair(std::string("01234567"), size_t{1}));
  }
}

TEST_CASE("vhdx headers: equal ones are fine, contradicting, damaged and newer ones are refused") {
  const auto same_number = [](Bytes& image) { set_in_headers<uint64_t>(image, 8, 5); };
  CHECK(refusal(same_number) == ErrorKind::kUsage);
  CHECK(refusal([&](Bytes& image) {
          same_number(image);
          image[kHeadersAt[1] + 4000] = std::byte{1};
          seal(image, kHeadersAt[1], kHeaderBytes);
        }) == ErrorKind::kMalformed);
  CHECK(refusal([](Bytes& image) {
          for (const uint64_t at : kHeadersAt) image[at + 100] = std::byte{1};
        }) == ErrorKind::kMalformed);
  CHECK(refusal([](Bytes& image) {
          store_le<uint16_t>(image, kHeadersAt[1] + 66, 2);
          seal(image, kHeadersAt[1], kHeaderBytes);
        }) == ErrorKind::kUnsupported);
  // The log's version does not matter when there is nothing in it.
  CHECK(refusal([](Bytes& image) { set_in_headers<uint16_t>(image, 64, 7); }) == ErrorKind::kUsage);
}

TEST_CASE("vhdx: a file without the signature, or shorter than the headers, is refused") {
  CHECK(with_bytes(0, uint8_t{'V'}) == ErrorKind::kMalformed);
  CHECK(refusal([](Bytes& image) { image.resize(0); }) == ErrorKind::kMalformed);
  CHECK(refusal([](Bytes& image) { image.resize(100); }) == ErrorKind::kTruncated);
  CHECK(refusal([](Bytes& image) { image.resize((1 << 20) - 1); }) == ErrorKind::kTruncated);
}

TEST_CASE("vhdx region table: the copy stands in for a damaged one, and must not contradict it") {
  for (const size_t table : {0u, 1u}) {
    Bytes image = dynamic().build();
    image[kRegionTablesAt[table] + 60000] ^= std::byte{1};
    const Opened opened = open(image);
    CHECK(read_all(opened) == content_of(dynamic()));
    CHECK(opened.disk->warnings.size() == 1);
    store_le<uint64_t>(image, kRegionTablesAt[table] + 32, 5 << 20);
    seal(image, kRegionTablesAt[table], kRegionTableBytes);
    CHECK(open(image).error() == ErrorKind::kMalformed);
  }
  CHECK(refusal([](Bytes& image) {
          for (const uint64_t at : kRegionTablesAt) image[at] = std::byte{'R'};
        }) == ErrorKind::kMalformed);
}

TEST_CASE("vhdx region table: what it may not say is refused") {
  CHECK(with_region(8, uint32_t{2048}) == ErrorKind::kMalformed);  // EntryCount
  CHECK(with_region(8, uint32_t{1}) == ErrorKind::kMalformed);     // no metadata
  CHECK(with_region(8, uint32_t{3}) == ErrorKind::kMalformed);     // an empty region
  CHECK(with_region(32, uint64_t{0}) == ErrorKind::kMalformed);    // the BAT's FileOffset
  CHECK(with_region(32, uint64_t{(3 << 20) + 512}) == ErrorKind::kMalformed);
  CHECK(with_region(32, uint64_t{1 << 20}) == ErrorKind::kMalformed);  // over the log
  CHECK(with_region(32, uint64_t{2 << 20}) == ErrorKind::kMalformed);  // over the metadata
  CHECK(with_region(32, uint64_t{1} << 40) == ErrorKind::kTruncated);
  CHECK(with_region(32, ~uint64_t{0} << 20) == ErrorKind::kTruncated);
  CHECK(with_region(64, uint64_t{1} << 40) == ErrorKind::kTruncated);  // the metadata's
  CHECK(with_region(40, uint32_t{0}) == ErrorKind::kMalformed);        // Length
  CHECK(with_region(40, uint32_t{4096}) == ErrorKind::kMalformed);
}

TEST_CASE("vhdx region table: unknown regions are refused when required, else left alone") {
  VhdxBuilder builder = dynamic();
  builder.more_regions = {{std::string(kSomeGuid), 1 << 30, 1 << 20, 0}};
  CHECK(read_all(open(builder.build())) == content_of(builder));
  builder.more_regions[0].offset = builder.block_offset(1);  // a block lies in it
  CHECK(open(builder.build()).error() == ErrorKind::kMalformed);
  builder.more_regions[0] = {std::string(kSomeGuid), 1 << 30, 1 << 20, 1};
  CHECK(open(builder.build()).says("needs the region 01234567-"));
  builder.more_regions[0] = {"2DC27766-F623-4200-9D64-115E9BFD4A08", 1 << 30, 1 << 20, 1};
  CHECK(open(builder.build()).error() == ErrorKind::kMalformed);  // a second BAT
}

TEST_CASE("vhdx metadata: what the table may not say is refused") {
  constexpr size_t kTable = VhdxBuilder::kMetadataAt;
  CHECK(with_bytes(kTable, uint8_t{'M'}) == ErrorKind::kMalformed);
  CHECK(with_bytes(kTable + 10, uint16_t{2048}) == ErrorKind::kMalformed);        // EntryCount
  CHECK(with_bytes(kTable + 10, uint16_t{2}) == ErrorKind::kMalformed);           // items missing
  CHECK(with_bytes(kTable + 32 + 16, uint32_t{65535}) == ErrorKind::kMalformed);  // Offset
  CHECK(with_bytes(kTable + 32 + 16, uint32_t{(1 << 20) - 7}) == ErrorKind::kMalformed);
  CHECK(with_bytes(kTable + 32 + 16, ~uint32_t{0}) == ErrorKind::kMalformed);
  CHECK(with_bytes(kTable + 32 + 20, uint32_t{7}) == ErrorKind::kMalformed);  // Length
  CHECK(with_bytes(kTable + 32 + 20, uint32_t{9}) == ErrorKind::kMalformed);  // over the next
  CHECK(with_bytes(kTable + 32 + 20, uint32_t{(1 << 20) + 1}) == ErrorKind::kMalformed);
  CHECK(with_bytes(kTable + 32 + 20, uint32_t{0}) == ErrorKind::kMalformed);
}

TEST_CASE("vhdx metadata: unknown items are refused when required, and users' are not ours") {
  VhdxBuilder builder = dynamic();
  builder.more_items = {{std::string(kSomeGuid), Bytes(100), 4}};
  CHECK(open(builder.build()).says("needs the metadata item 01234567-"));
  builder.more_items[0].flags = 0;
  CHECK(open(builder.build()));
  // IsUser: the same ItemId is another item.
  builder.more_items[0] = {"2FA54224-CD1B-4876-B211-5DBED83BF4B8", Bytes(8), 1};
  CHECK(open(builder.build())->size() == builder.size);
  builder.more_items[0].flags = 4;
  CHECK(open(builder.build()).error() == ErrorKind::kMalformed);  // a second size
}

TEST_CASE("vhdx metadata: values beyond their limits are refused") {
  constexpr size_t kParameters = VhdxBuilder::kItemsAt;
  for (const uint32_t block_size : {0u, 1u, 512u << 10, 3u << 20, 512u << 20, ~0u}) {
    CHECK(with_bytes(kParameters, block_size) == ErrorKind::kMalformed);
  }
  CHECK(with_bytes(kParameters + 4, uint32_t{1}) == ErrorKind::kUsage);  // LeaveBlockAllocated
  CHECK(with_bytes(kParameters + 4, uint32_t{4}) == ErrorKind::kUnsupported);
  CHECK(with_bytes(kParameters + 4, uint32_t{2}) == ErrorKind::kMalformed);  // without a locator
  CHECK(with_bytes(kParameters + 8, uint64_t{1000}) == ErrorKind::kMalformed);
  CHECK(with_bytes(kParameters + 8, (uint64_t{64} << 40) + 512) == ErrorKind::kMalformed);
  CHECK(with_bytes(kParameters + 8, uint64_t{1} << 40) ==
        ErrorKind::kMalformed);  // a BAT too small
  CHECK(with_bytes(kParameters + 8, uint64_t{0}) == ErrorKind::kUsage);
  for (const uint32_t sector : {0u, 511u, 1024u, 8192u, ~0u}) {
    CHECK(with_bytes(kParameters + 16, sector) == ErrorKind::kMalformed);
  }
}

TEST_CASE("vhdx blocks: one where no block may lie is refused") {
  const size_t entry = VhdxBuilder::kBatAt + 8;
  const uint64_t end = dynamic().build().size();
  for (const uint64_t place :
       {uint64_t{0}, uint64_t{1} << 20, uint64_t{2} << 20, uint64_t{3} << 20}) {
    CHECK(with_bytes(entry, place | 6) == ErrorKind::kMalformed);
  }
  CHECK(with_bytes(entry, uint64_t{VhdxBuilder::kBlocksAt} | 6 | 8) == ErrorKind::kMalformed);
  CHECK(with_bytes(entry, uint64_t{VhdxBuilder::kBlocksAt} | 6 | 1 << 19) == ErrorKind::kMalformed);
  CHECK(with_bytes(entry, dynamic().block_offset(3) | 6) == ErrorKind::kMalformed);  // over another
  CHECK(with_bytes(entry, end | 6) == ErrorKind::kTruncated);
  CHECK(with_bytes(entry, (~uint64_t{0} << 20) | 6) == ErrorKind::kTruncated);
}

TEST_CASE("vhdx geometry: the BAT has an entry for each block, and one for each chunk") {
  const auto entries = [](uint64_t blocks, bool has_parent) {
    return Geometry{
        .virtual_disk_size = blocks << 28, .block_size = 256 << 20, .has_parent = has_parent}
        .entries();
  };
  // 16 blocks of 256 MiB are a chunk.
  CHECK(entries(0, false) == 0);
  CHECK(entries(1, false) == 1);
  CHECK(entries(16, false) == 16);
  CHECK(entries(17, false) == 18);
  CHECK(entries(0, true) == 0);
  CHECK(entries(1, true) == 17);
  CHECK(entries(16, true) == 17);
  CHECK(entries(17, true) == 34);
}

}  // namespace
}  // namespace underlay::vhdx::test
