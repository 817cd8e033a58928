#include "formats/qcow2/qcow2_layout.h"

#include <doctest/doctest.h>

#include "formats/qcow2/qcow2_entries.h"
#include "formats/qcow2/qcow2_entries.h"
#include "tests/support/qcow2_fixture.h"

namespace underlay {
namespace {

constexpr uint64_t kCopied = uint64_t{1} << 63;
constexpr uint64_t kCompressed = uint64_t{1} << 62;

Qcow2Header header_of(const Qcow2Builder& builder) {
  auto header = parse_qcow2_header(builder.file);
  REQUIRE_MESSAGE(header, header.error().to_string());
  return *header;
}

ProbeResult probe(const Qcow2Builder::Bytes& file) {
  return probe_qcow2({.head = ByteSpan(file).first(std::min<size_t>(file.size(), 65536)),
                      .tail = {},
                      .size = file.size()});
}

}  // namespace

TEST_CASE("qcow2 header: every field is read from its place") {
  for (const uint32_t version : {2u, 3u}) {
    Qcow2Builder builder({.version = version, .cluster_bits = 12, .size = 12345678});
    builder.set32(60, 3);
    builder.set64(64, 8192);
    const Qcow2Header header = header_of(builder);
    CHECK(header.version == version);
    CHECK(header.cluster_size() == 4096);
    CHECK(header.size == 12345678);
    CHECK(header.l1_size == 6);
    CHECK(header.l1_table_offset == 4096);
    CHECK(header.nb_snapshots == 3);
    CHECK(header.snapshots_offset == 8192);
    CHECK(header.header_length == (version == 2 ? 72 : 112));
    CHECK(header.l2_span() == 512 * 4096);
  }
}

TEST_CASE("qcow2 header: the fields behind version 2's end are not version 2's") {
  Qcow2Builder builder({.version = 2});
  builder.set64(72, ~uint64_t{0});
  CHECK(header_of(builder).incompatible_features == 0);
}

TEST_CASE("qcow2 header: one wrong field is refused by its name") {
  struct Wrong {
    uint64_t offset;
    int bytes;
    uint64_t value;
    ErrorKind kind;
    std::string_view words;
  };
  constexpr auto kMalformed = ErrorKind::kMalformed;
  const Wrong cases[] = {
      {0, 4, 0x514649fa, kMalformed, "magic"},
      {4, 4, 1, ErrorKind::kUnsupported, "version is 1"},
      {4, 4, 4, ErrorKind::kUnsupported, "version is 4"},
      {8, 8, 111, kMalformed, "backing_file_offset is 111"},
      {8, 8, 513, kMalformed, "backing_file_offset is 513"},
      {8, 8, ~uint64_t{0}, kMalformed, "backing_file_offset"},
      {8, 8, 200, kMalformed, "backing_file_size is 0"},
      {20, 4, 8, kMalformed, "cluster_bits is 8"},
      {20, 4, 22, kMalformed, "cluster_bits is 22"},
      {20, 4, 0xffffffff, kMalformed, "cluster_bits"},
      {24, 8, (64 << 10) + 1, kMalformed, "l1_size is 2"},
      {24, 8, ~uint64_t{0}, kMalformed, "l1_size is 2"},
      {36, 4, 1, kMalformed, "l1_size is 1"},
      {36, 4, (4 << 20) + 1, ErrorKind::kLimit, "l1_size is 4194305"},
      {40, 8, 0, kMalformed, "l1_table_offset is 0"},
      {40, 8, 513, kMalformed, "l1_table_offset is 513"},
      {40, 8, uint64_t{1} << 63, kMalformed, "l1_table_offset"},
      {40, 8, ~uint64_t{511}, kMalformed, "l1_table_offset"},
      {60, 4, 65537, ErrorKind::kLimit, "nb_snapshots is 65537"},
      {60, 4, 1, kMalformed, "snapshots_offset is 0"},
      {72, 8, 8, kMalformed, "compression_type is 0"},
      {72, 8, 16, kMalformed, "extended L2"},
      {100, 4, 96, kMalformed, "header_length is 96"},
      {100, 4, 113, kMalformed, "header_length is 113"},
      {100, 4, 520, kMalformed, "header_length is 520"},
      {104, 1, 1, kMalformed, "compression_type is 1"},
      {104, 1, 2, ErrorKind::kUnsupported, "compression_type is 2"},
  };
  for (const Wrong& wrong : cases) {
    CAPTURE(wrong.words);
    Qcow2Builder builder({});
    if (wrong.bytes == 1) builder.file[wrong.offset] = std::byte(wrong.value);
    if (wrong.bytes == 4) builder.set32(wrong.offset, static_cast<uint32_t>(wrong.value));
    if (wrong.bytes == 8) builder.set64(wrong.offset, wrong.value);
    check_refused(parse_qcow2_header(builder.file), wrong.kind, wrong.words);
  }
}

TEST_CASE("qcow2 header: a backing file name ends within 1023 bytes and the first cluster") {
  Qcow2Builder small({});
  small.set64(8, 200);
  small.set32(16, 313);
  check_refused(parse_qcow2_header(small.file), ErrorKind::kMalformed, "must be 1 to 312");
  small.set32(16, 312);
  CHECK(parse_qcow2_header(small.file));

  Qcow2Builder large({.cluster_bits = 16});
  large.set64(8, 200);
  large.set32(16, 1024);
  check_refused(parse_qcow2_header(large.file), ErrorKind::kMalformed, "must be 1 to 1023");
  large.set32(16, 1023);
  CHECK(parse_qcow2_header(large.file));
}

TEST_CASE("qcow2 header: every cut of it is refused as truncated") {
  for (const uint32_t version : {2u, 3u}) {
    Qcow2Builder builder({.version = version, .codec = Codec::kDeflate});
    const size_t whole = version == 2 ? 72 : 105;
    for (size_t length = 4; length < whole; ++length) {
      CAPTURE(length);
      const ByteSpan cut = ByteSpan(builder.file).first(length);
      check_refused(parse_qcow2_header(cut), ErrorKind::kTruncated, "");
    }
    CHECK(parse_qcow2_header(ByteSpan(builder.file).first(whole)));
  }
}

TEST_CASE("qcow2 extensions: known ones are found among unknown ones") {
  Qcow2Builder builder({});
  builder.add_extension(0x12345678, "skipped");
  builder.add_extension(0xe2792aca, "raw");
  builder.add_extension(0x44415441, "disk.data");
  builder.set_backing_name("base.img");
  const Qcow2Header header = header_of(builder);
  const auto extensions = parse_qcow2_extensions(header, builder.file);
  REQUIRE(extensions);
  CHECK(extensions->backing_format == "raw");
  CHECK(extensions->data_file == "disk.data");
  const auto name = parse_qcow2_backing_name(header, builder.file);
  REQUIRE(name);
  CHECK(name->value() == "base.img");
}

TEST_CASE(
    "qcow2 extensions: one that reaches into the backing name or past the cluster is refused") {
  Qcow2Builder builder({});
  builder.add_extension(0xe2792aca, "raw");
  builder.set_backing_name("base.img");
  for (const uint32_t length : {17u, 0x7fffffffu, 0xffffffffu}) {
    builder.set32(112 + 4, length);
    check_refused(parse_qcow2_extensions(header_of(builder), builder.file), ErrorKind::kMalformed,
                  "header extension 0xe2792aca");
  }
}

TEST_CASE("qcow2 extensions: nothing is read behind the one that ends them") {
  Qcow2Builder builder({});
  builder.add_extension(0, "");
  builder.add_extension(0xe2792aca, "raw");
  const auto extensions = parse_qcow2_extensions(header_of(builder), builder.file);
  REQUIRE(extensions);
  CHECK(extensions->backing_format.empty());
}

TEST_CASE("qcow2 extensions: the same one twice is ambiguous") {
  for (const uint32_t type : {0xe2792acau, 0x44415441u}) {
    Qcow2Builder builder({});
    builder.add_extension(type, "raw");
    builder.add_extension(type, "qcow2");
    check_refused(parse_qcow2_extensions(header_of(builder), builder.file), ErrorKind::kMalformed,
                  "stands twice");
  }
}

TEST_CASE("qcow2 features: an unknown incompatible bit is refused by the name the image gives it") {
  for (unsigned bit = 5; bit < 64; ++bit) {
    Qcow2Builder builder({});
    std::string names(2 * 48, '\0');
    names.replace(0, 7, std::string("\x01") + static_cast<char>(bit) + "wrong");
    names[49] = static_cast<char>(bit);
    names.replace(50, 6, "future");
    builder.add_extension(0x6803f857, names);
    builder.set64(72, uint64_t{1} << bit);
    const Qcow2Header header = header_of(builder);
    const auto extensions = parse_qcow2_extensions(header, builder.file);
    REQUIRE(extensions);
    check_refused(check_qcow2_supported(header, *extensions), ErrorKind::kUnsupported,
                  fmt::format("feature bit {} (\"future\")", bit));
    check_refused(check_qcow2_supported(header, {}), ErrorKind::kUnsupported, "unnamed");
  }
}

TEST_CASE("qcow2 L1 entries: reserved bits and unaligned offsets are refused") {
  const Qcow2Header header = header_of(Qcow2Builder({.cluster_bits = 12}));
  CHECK(parse_qcow2_l1_entry(header, 0).value() == 0);
  CHECK(parse_qcow2_l1_entry(header, kCopied | 0x3000).value() == 0x3000);
  CHECK(parse_qcow2_l1_entry(header, 0x00ff'ffff'ffff'f000).value() == 0x00ff'ffff'ffff'f000);
  for (const unsigned bit : {0u, 1u, 8u, 56u, 61u, 62u}) {
    check_refused(parse_qcow2_l1_entry(header, 0x3000 | uint64_t{1} << bit), ErrorKind::kMalformed,
                  "reserved");
  }
  for (const unsigned bit : {9u, 11u}) {
    check_refused(parse_qcow2_l1_entry(header, 0x3000 | uint64_t{1} << bit), ErrorKind::kMalformed,
                  "multiple of 4096");
  }
}

TEST_CASE("qcow2 L2 entries: the compressed descriptor's fields move with the cluster size") {
  for (uint32_t bits = 9; bits <= 21; ++bits) {
    CAPTURE(bits);
    const Qcow2Header header = header_of(Qcow2Builder({.cluster_bits = bits, .size = 512}));
    const uint32_t shift = 62 - (bits - 8);
    const uint64_t most = (uint64_t{1} << (bits - 8)) - 1;
    const uint64_t host = (uint64_t{5} << 40) + 300;
    const auto cluster = parse_qcow2_l2_entry(header, 0, kCompressed | most << shift | host, 0);
    REQUIRE(cluster);
    CHECK(cluster->compressed);
    CHECK(cluster->host_offset == host);
    CHECK(cluster->stored_length == (most + 1) * 512 - 300 % 512);
    CHECK(cluster->stored_length <= 2 * header.cluster_size());
  }
}

TEST_CASE("qcow2 L2 entries: compressed data has an offset of 56 bits, behind the header") {
  const Qcow2Header header = header_of(Qcow2Builder({}));
  const auto parse = [&](uint64_t host) {
    return parse_qcow2_l2_entry(header, 0, kCompressed | host, 0);
  };
  CHECK(parse((uint64_t{1} << 56) - 1));
  check_refused(parse(uint64_t{1} << 56), ErrorKind::kMalformed, "56 bits");
  check_refused(parse(511), ErrorKind::kMalformed, "header");
}

TEST_CASE("qcow2 L2 entries: the kinds of cluster") {
  const Qcow2Header header = header_of(Qcow2Builder({.cluster_bits = 12}));
  const auto parse = [&](uint64_t entry) { return parse_qcow2_l2_entry(header, 0, entry, 0); };
  const auto data = parse(kCopied | 0x5000);
  REQUIRE(data);
  CHECK(data->host_offset == 0x5000);
  CHECK(data->stored == 0xffffffff);
  CHECK(data->zeros == 0);
  const auto nothing = parse(0);
  REQUIRE(nothing);
  CHECK(nothing->stored == 0);
  CHECK(nothing->zeros == 0);
  const auto zeros = parse(1);
  REQUIRE(zeros);
  CHECK(zeros->zeros == 0xffffffff);
  CHECK_FALSE(zeros->reserved);
  const auto reserved = parse(0x5001);
  REQUIRE(reserved);
  CHECK(reserved->zeros == 0xffffffff);
  CHECK(reserved->stored == 0);
  CHECK(reserved->reserved);
  for (const unsigned bit : {1u, 8u, 56u, 61u}) {
    check_refused(parse(0x5000 | uint64_t{1} << bit), ErrorKind::kMalformed, "reserved bits");
  }
  check_refused(parse(0x5200), ErrorKind::kMalformed, "multiple of the cluster size");
  check_refused(parse(0x5201), ErrorKind::kMalformed, "multiple of the cluster size");
}

TEST_CASE("qcow2 L2 entries: version 2 has no zero clusters") {
  const Qcow2Header header = header_of(Qcow2Builder({.version = 2}));
  check_refused(parse_qcow2_l2_entry(header, 0, 1, 0), ErrorKind::kMalformed, "version 2");
  check_refused(parse_qcow2_l2_entry(header, 0, 0x401, 0), ErrorKind::kMalformed, "version 2");
}

TEST_CASE("qcow2 L2 entries: the bitmap of an extended one decides for each subcluster") {
  const Qcow2Header header = header_of(Qcow2Builder({.cluster_bits = 14, .extended_l2 = true}));
  const auto parse = [&](uint64_t entry, uint64_t bitmap) {
    return parse_qcow2_l2_entry(header, 0, entry, bitmap);
  };
  const auto cluster = parse(kCopied | 0x8000, uint64_t{0xf0} << 32 | 0x0f);
  REQUIRE(cluster);
  CHECK(cluster->stored == 0x0f);
  CHECK(cluster->zeros == 0xf0);
  CHECK(cluster->reserved);
  CHECK(parse(0, uint64_t{1} << 63)->zeros == 0x80000000);
  CHECK(parse(kCompressed | 0x8001, ~uint64_t{0})->compressed);
  check_refused(parse(0x8000, uint64_t{1} << 32 | 1), ErrorKind::kMalformed, "both");
  check_refused(parse(0, 1), ErrorKind::kMalformed, "the cluster is not");
  check_refused(parse(0x8001, 0), ErrorKind::kMalformed, "reserved");
}

TEST_CASE("qcow2 L2 entries: a data file holds every cluster at its guest offset, uncompressed") {
  const Qcow2Header header = header_of(Qcow2Builder({.external_data = true}));
  CHECK(parse_qcow2_l2_entry(header, 1024, kCopied | 1024, 0)->stored == 0xffffffff);
  CHECK(parse_qcow2_l2_entry(header, 0, kCopied, 0)->stored == 0xffffffff);
  CHECK(parse_qcow2_l2_entry(header, 0, 0, 0)->stored == 0);
  CHECK(parse_qcow2_l2_entry(header, 1024, 1, 0)->zeros == 0xffffffff);
  for (const uint64_t entry : {uint64_t{512}, kCopied | 512, kCopied}) {
    check_refused(parse_qcow2_l2_entry(header, 1024, entry, 0), ErrorKind::kMalformed,
                  "guest offset");
  }
  check_refused(parse_qcow2_l2_entry(header, 1024, kCompressed | 1024, 0), ErrorKind::kMalformed,
                "compressed");
}

TEST_CASE("qcow2 snapshots: version 3 must state the disk's size, version 2 need not") {
  const Qcow2Builder::Bytes extra(8);
  const Qcow2Header v2 = header_of(Qcow2Builder({.version = 2, .size = 1024}));
  CHECK(parse_qcow2_snapshot_disk_size(v2, extra).value() == 1024);
  const Qcow2Header v3 = header_of(Qcow2Builder({.size = 1024}));
  check_refused(parse_qcow2_snapshot_disk_size(v3, extra), ErrorKind::kMalformed, "disk's size");
}

TEST_CASE("qcow2 probe: versions 2 and 3 are qcow2") {
  CHECK(probe(Qcow2Builder({.version = 2}).file).verdict == ProbeVerdict::kYes);
  CHECK(probe(Qcow2Builder({.version = 3}).file).verdict == ProbeVerdict::kYes);
  CHECK(probe(Qcow2Builder::Bytes(4096)).verdict == ProbeVerdict::kNo);
  CHECK(probe({}).verdict == ProbeVerdict::kNo);
}

TEST_CASE("qcow2 probe: a damaged header is not taken for a raw disk") {
  for (const uint32_t version : {0u, 1u, 4u, 0xffffffffu}) {
    Qcow2Builder builder({});
    builder.set32(4, version);
    CHECK(probe(builder.file).verdict == ProbeVerdict::kDamaged);
  }
  for (const uint32_t version : {2u, 3u}) {
    const Qcow2Builder builder({.version = version});
    for (size_t length = 4; length < (version == 2 ? 72 : 104); ++length) {
      Qcow2Builder::Bytes cut = builder.file;
      cut.resize(length);
      CHECK(probe(cut).verdict == ProbeVerdict::kDamaged);
    }
    for (size_t i = 0; i < 4; ++i) {
      Qcow2Builder::Bytes damaged = builder.file;
      damaged[i] ^= std::byte{0x20};
      CHECK(probe(damaged).verdict == ProbeVerdict::kDamaged);
      damaged[(i + 1) % 4] ^= std::byte{0x20};
      CHECK(probe(damaged).verdict == ProbeVerdict::kNo);
    }
  }
}

}  // namespace underlay
