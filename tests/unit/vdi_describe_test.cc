#include <doctest/doctest.h>

#include <cstring>

#include "formats/vdi/vdi_layout.h"
#include "io/store_le.h"
#include "tests/support/inspected.h"
#include "tests/support/vdi_disks.h"

namespace underlay::vdi::test {
namespace {

Result<ImageFacts> describe(const Bytes& image) {
  return underlay::test::describe_as("vdi", image);
}

// Why an image with one wrong field is not served.
template <class T>
std::string with_field(size_t offset, T value) {
  Bytes image = dynamic().build();
  store_le<T>(image, offset, value);
  CHECK_FALSE(open(image));
  return underlay::test::refusals(describe(image));
}

TEST_CASE("vdi describe: what the header says") {
  Bytes image = dynamic().build();
  constexpr std::string_view kComment = "a comment";
  std::memcpy(image.data() + 84, kComment.data(), kComment.size());
  const auto facts = describe(image).value();
  CHECK(facts.virtual_size == kSize);
  CHECK(facts.cluster_size == kBlock);
  CHECK_FALSE(facts.encrypted);
  CHECK_FALSE(facts.dirty);
  CHECK(facts.creator == "Oracle VM VirtualBox");
  CHECK(facts.identity == open(image).reader().identity());
  CHECK(facts.names.empty());
  CHECK(facts.findings.empty());
  CHECK(facts.specific["subformat"] == "dynamic");
  CHECK(facts.specific["version"] == "1.1");
  CHECK(facts.specific["text"] == "<<< Oracle VM VirtualBox Disk Image >>>");
  CHECK(facts.specific["description"] == kComment);
  CHECK(facts.specific["blocks-in-image"] == 6);
  CHECK(facts.specific["blocks-allocated"] == 3);
  CHECK(facts.specific["uuid-last-snap"] == "12121212-1212-1212-1212-121212121212");
  CHECK(facts.specific["uuid-link"] == "");
}

TEST_CASE("vdi describe: a differencing image knows its parent by uuid alone") {
  const auto facts = describe(differencing().build());
  CHECK(underlay::test::refusals(facts).empty());
  CHECK(underlay::test::notices(facts) == "parent-unnamed");
  CHECK(facts->specific["uuid-link"] == "11111111-1111-1111-1111-111111111111");
  CHECK(facts->specific["uuid-parent"] == "12121212-1212-1212-1212-121212121212");
}

TEST_CASE("vdi describe: what is not served is told, each by its rule") {
  CHECK(with_field<uint32_t>(68, 0x00010002) == "version-unsupported");
  CHECK(with_field<uint32_t>(72, 383) == "header-size-wrong");
  CHECK(with_field<uint32_t>(80, 0x200) == "flags-unknown");
  CHECK(with_field<uint32_t>(360, 4096) == "sector-size-unsupported");
  CHECK(with_field<uint32_t>(376, 6000) == "block-size-wrong");
  CHECK(with_field<uint32_t>(380, 513) == "block-extra-wrong");
  CHECK(with_field<uint64_t>(368, 6 * kBlock + 1) == "size-beyond-blocks");
  CHECK(with_field<uint32_t>(388, 7) == "allocated-beyond-blocks");
  CHECK(with_field<uint32_t>(340, 513) == "map-misaligned");
  CHECK(with_field<uint32_t>(344, 1025) == "data-misaligned");
  CHECK(with_field<uint32_t>(340, 0) == "map-in-header");
  CHECK(with_field<uint32_t>(344, 512) == "data-in-map");
  CHECK(with_field<uint32_t>(384, 1 << 30) == "data-in-map map-beyond-end");
  CHECK(with_field<uint32_t>(424, 1) == "link-unexpected");
  CHECK(with_field<uint32_t>(76, 4) == "link-missing");
  CHECK(with_field<uint32_t>(76, 3) == "type-undo");
  CHECK(with_field<uint32_t>(76, 5) == "type-unknown");
}

TEST_CASE("vdi describe: the header of a version before 1.0 is understood") {
  Bytes image = dynamic().build();
  std::memset(image.data() + 68, 0, 400);
  store_le<uint32_t>(image, 68, 1);
  store_le<uint32_t>(image, 72, 2);
  std::memcpy(image.data() + 80, "old", 3);
  store_le<uint64_t>(image, 352, 0x123400000);
  store_le<uint32_t>(image, 360, 1 << 20);
  image[372] = std::byte{0x78};
  const auto facts = describe(image);
  CHECK(underlay::test::refusals(facts) == "version-unsupported");
  CHECK(facts->virtual_size == 0x123400000);
  CHECK(facts->cluster_size == 1 << 20);
  CHECK(facts->specific["version"] == "0.1");
  CHECK(facts->specific["subformat"] == "static");
  CHECK(facts->specific["description"] == "old");
  CHECK(facts->identity == "00000078-0000-0000-0000-000000000000");
}

TEST_CASE("vdi describe: what is no VDI, or ends within its header, is a failure") {
  const Bytes image = dynamic().build();
  Bytes other = image;
  other[64] ^= std::byte{1};
  CHECK(describe(other).error().kind == ErrorKind::kMalformed);
  for (const size_t size : {0u, 71u}) {
    CHECK(describe(Bytes(image.begin(), image.begin() + static_cast<std::ptrdiff_t>(size)))
              .error()
              .kind == ErrorKind::kMalformed);
  }
  CHECK(describe(Bytes(image.begin(), image.begin() + 455)).error().kind == ErrorKind::kTruncated);
  auto source = std::make_shared<FaultySource>(std::make_shared<MemorySource>(image));
  source->fail_read(0);
  CHECK(underlay::test::describe_as("vdi", source).error().kind == ErrorKind::kIo);
}

}  // namespace
}  // namespace underlay::vdi::test
