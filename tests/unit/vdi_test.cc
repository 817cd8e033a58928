#include "formats/vdi/vdi.h"

#include <doctest/doctest.h>

#include <cstring>

#include "formats/metadata.h"
#include "formats/vdi/vdi_layout.h"
#include "io/store_le.h"
#include "tests/support/temp_folder.h"
#include "tests/support/vdi_disks.h"

namespace underlay::vdi::test {
namespace {

using Kind = Extent::Kind;

TEST_CASE("vdi: stored blocks are the disk's, free and discarded ones are zeros") {
  for (const uint32_t type : {kTypeDynamic, kTypeStatic}) {
    VdiBuilder builder = dynamic();
    builder.image_type = type;
    const Opened disk = open(builder.build());
    CHECK(disk->unpadded_size() == kSize);
    CHECK(read_all(disk) == content_of(builder));
    CHECK(disk.disk->warnings.empty());
    const Reader& reader = *disk->layers().front().reader;
    CHECK(reader.cluster_size() == kBlock);
    CHECK(reader.identity() == "11111111-1111-1111-1111-111111111111");
  }
}

TEST_CASE("vdi: bytes before each block are skipped") {
  for (const uint32_t extra : {512u, 4096u, 16384u}) {
    VdiBuilder builder = dynamic();
    builder.block_extra = extra;
    CHECK(read_all(open(builder.build())) == content_of(builder));
  }
}

TEST_CASE("vdi: any power of two is a block size, no other number is") {
  for (uint32_t size = 512; size <= 65536; size *= 2) {
    VdiBuilder builder = dynamic();
    builder.block_size = size;
    builder.disk_size = 5 * size + 512;
    for (Bytes& block : builder.stored) block = pattern(size, 1);
    CHECK(read_all(open(builder.build())) == content_of(builder));
  }
  Bytes image = dynamic().build();
  for (const uint32_t size : {0u, 1u, 2u, 256u, 4095u, 4097u, 12288u, ~0u}) {
    store_le<uint32_t>(image, 376, size);
    CHECK(open(image).error() == ErrorKind::kMalformed);
  }
}

TEST_CASE("vdi: blocks of 2 GiB need no memory") {
  VdiBuilder builder;
  builder.disk_size = uint64_t{5} << 31;
  builder.block_size = uint32_t{1} << 31;
  Bytes image = builder.build();
  CHECK(open(image)->map(0, builder.disk_size, MapFor::kRead).value().length == builder.disk_size);
  store_le<uint32_t>(image, 388, 5);
  store_le<uint32_t>(image, VdiBuilder::kMapAt + 8, 4);
  CHECK(open(image).error() == ErrorKind::kTruncated);
}

TEST_CASE("vdi: an odd size ends in a sector filled up with zeros") {
  for (const uint64_t size : {kSize - 1, kSize - 511, kSize - 513, uint64_t{1}}) {
    VdiBuilder builder = dynamic();
    builder.disk_size = size;
    builder.blocks_in_image = 6;
    const Opened disk = open(builder.build());
    CHECK(disk->size() == *round_up(size, 512));
    Bytes content = content_of(dynamic());
    content.resize(size);
    content.resize(disk->size());
    CHECK(read_all(disk) == content);
    REQUIRE(disk.disk->warnings.size() == 1);
  }
}

TEST_CASE("vdi: a disk of no bytes has no blocks") {
  VdiBuilder builder;
  CHECK(open(builder.build())->size() == 0);
}

TEST_CASE("vdi: neighbours in the disk and in the file are one extent") {
  VdiBuilder builder;
  builder.disk_size = 8 * kBlock;
  builder.entries = {{1, 0}, {2, 1}, {3, 2}, {4, 4}, {5, 3}, {7, 0xfffffffe}};
  for (uint32_t seed = 0; seed < 5; ++seed) builder.stored.push_back(pattern(kBlock, seed));
  const Opened disk = open(builder.build());
  const Reader& reader = *disk->layers().front().reader;
  const auto run = [&](uint64_t offset, uint64_t length) {
    const Extent extent = reader.map(offset, length, MapFor::kRead).value();
    return std::pair(extent.kind, extent.length);
  };
  CHECK(run(0, 8 * kBlock) == std::pair(Kind::kZero, uint64_t{kBlock}));
  CHECK(run(kBlock + 7, 7 * kBlock - 7) == std::pair(Kind::kData, uint64_t{3 * kBlock - 7}));
  CHECK(run(kBlock + 7, kBlock) == std::pair(Kind::kData, uint64_t{kBlock}));
  CHECK(run(4 * kBlock, 4 * kBlock) == std::pair(Kind::kData, uint64_t{kBlock}));
  CHECK(run(6 * kBlock, 2 * kBlock) == std::pair(Kind::kZero, uint64_t{kBlock}));
  CHECK(read_all(disk) == content_of(builder));
  builder.block_extra = 512;
  CHECK(read_all(open(builder.build())) == content_of(builder));
}

TEST_CASE("vdi: what needs a part of the map that is not in memory would block") {
  VdiBuilder builder;
  builder.disk_size = uint64_t{kBlock} << 21;  // a map that is too large to be checked at once
  const Opened disk = open(builder.build());
  const Reader& reader = *disk->layers().front().reader;
  const uint64_t offset = uint64_t{kBlock} * (Metadata::kSliceBytes / 4 * 3);
  const auto waiting = reader.map(offset, 512, MapFor::kReadNow);
  REQUIRE_FALSE(waiting);
  CHECK(waiting.error().kind == ErrorKind::kWouldBlock);
  CHECK(reader.map(offset, 512, MapFor::kRead));
  CHECK(reader.map(offset, 512, MapFor::kReadNow).value().kind == Kind::kZero);
}

TEST_CASE("vdi: a UUID is shown as VBoxManage shows it") {
  Guid uuid{};
  CHECK(to_string(uuid) == "");
  for (size_t i = 0; i < uuid.size(); ++i) uuid[i] = static_cast<std::byte>(i);
  CHECK(to_string(uuid) == "03020100-0504-0706-0809-0a0b0c0d0e0f");
}

// Parents are given by the operator, so they are files.
class Family {
 public:
  void write(std::string_view name, const Bytes& image) { folder_.write(name, as_text(image)); }
  Opened open_child(const std::string& parent = "parent.vdi") {
    Opened opened;
    OpenOptions options;
    if (!parent.empty()) {
      options.parents = {{.child = "child.vdi", .path = folder_.path(parent)}};
    }
    opened.disk = open_disk(folder_.path("child.vdi"), options, Confinement(), *opened.caches);
    return opened;
  }

 private:
  TempFolder folder_;
};

TEST_CASE("vdi differencing: free blocks are the parent's, discarded ones zeros") {
  Family family;
  family.write("parent.vdi", dynamic().build());
  family.write("child.vdi", differencing().build());
  const Opened disk = family.open_child();
  REQUIRE_MESSAGE(disk, disk.message());
  CHECK(read_all(disk) == content_of(differencing(), content_of(dynamic())));
  CHECK(disk.disk->warnings.empty());
  const Reader& child = *disk->layers().front().reader;
  CHECK(child.map(0, kSize, MapFor::kRead).value().kind == Kind::kParent);
  CHECK(child.map(4 * kBlock, kSize - 4 * kBlock, MapFor::kRead).value().length ==
        kSize - 4 * kBlock);
}

TEST_CASE("vdi differencing: without --parent it is refused, with the way out") {
  Family family;
  family.write("child.vdi", differencing().build());
  const Opened alone = family.open_child("");
  CHECK(alone.error() == ErrorKind::kMalformed);
  CHECK(alone.message().find("--parent child.vdi=PATH") != std::string::npos);
}

TEST_CASE("vdi differencing: a parent with another identity, or none, is refused") {
  Family family;
  family.write("child.vdi", differencing().build());
  VdiBuilder parent = dynamic();
  for (const std::byte id : {std::byte{0x13}, std::byte{0}}) {
    parent.id = id;
    family.write("parent.vdi", parent.build());
    CHECK(family.open_child().error() == ErrorKind::kMalformed);
  }
  family.write("parent.vdi", Bytes(kSize));
  CHECK(family.open_child().error() == ErrorKind::kMalformed);
  CHECK(family.open_child("child.vdi").error() == ErrorKind::kMalformed);
  CHECK_FALSE(family.open_child("nothing.vdi"));
}

TEST_CASE("vdi differencing: a parent that was written to since is warned of") {
  Family family;
  family.write("child.vdi", differencing().build());
  VdiBuilder parent = dynamic();
  parent.revision = std::byte{0x99};
  family.write("parent.vdi", parent.build());
  const Opened disk = family.open_child();
  REQUIRE(disk);
  REQUIRE(disk.disk->warnings.size() == 1);
  CHECK(disk.disk->warnings[0].find("99999999-") != std::string::npos);

  VdiBuilder child = differencing();
  child.parent_revision = std::byte{0};  // does not say
  family.write("child.vdi", child.build());
  CHECK(family.open_child().disk->warnings.empty());
}

TEST_CASE("vdi differencing: behind the end of a smaller parent are zeros") {
  Family family;
  VdiBuilder parent = dynamic();
  parent.disk_size = 2 * kBlock;
  parent.entries = {{1, 0}};
  parent.stored.resize(1);
  family.write("parent.vdi", parent.build());
  family.write("child.vdi", differencing().build());
  CHECK(read_all(family.open_child()) == content_of(differencing(), content_of(parent)));
}

TEST_CASE("vdi: type and link to a parent must agree, unknown types are refused") {
  VdiBuilder builder = dynamic();
  builder.parent_id = std::byte{0x11};
  CHECK(open(builder.build()).error() == ErrorKind::kMalformed);
  builder = differencing();
  builder.parent_id = std::byte{0};
  CHECK(open(builder.build()).error() == ErrorKind::kMalformed);
  for (const uint32_t type : {0u, 3u, 5u, 0x01000000u, ~0u}) {
    builder = dynamic();
    builder.image_type = type;
    const Opened opened = open(builder.build());
    CHECK(opened.error() == ErrorKind::kUnsupported);
    CHECK(opened.message().find(std::to_string(type)) != std::string::npos);
  }
}

}  // namespace
}  // namespace underlay::vdi::test
