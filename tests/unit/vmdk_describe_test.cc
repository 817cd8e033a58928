// What underlay-img tells of VMDK images.
#include "formats/vmdk/vmdk_describe.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "formats/inspection/image_facts.h"
#include "formats/vmdk/vmdk_descriptor.h"
#include "formats/vmdk/vmdk_layout.h"
#include "io/store_le.h"
#include "tests/support/inspected.h"
#include "tests/support/vmdk_esx_builder.h"
#include "tests/support/vmdk_opened.h"

namespace underlay::vmdk_test {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kDiskBytes = 1 << 20;

Result<ImageFacts> described(std::shared_ptr<const Source> source) {
  return underlay::test::describe_as("vmdk", std::move(source));
}

Result<ImageFacts> described(const std::string& text) { return described(in_memory(text)); }

std::string codes(const Result<ImageFacts>& facts) {
  REQUIRE(facts);
  return underlay::test::marked_codes(facts->findings);
}

BuiltVmdk image(VmdkSpec spec = {}) { return monolithic(vmdk_content(kDiskBytes, 1, 9), spec); }

// An image whose descriptor has the line `line` before its only extent.
std::string with_line(const std::string& line) {
  return vmdk_text("custom", {line, "RW 8 FLAT \"flat\" 0"});
}

TEST_CASE("vmdk describe: an image with an embedded descriptor") {
  const std::string text = vmdk_text(
      "monolithicSparse",
      {"CID=f67f4aa4", "parentCID=ffffffff", vmdk_sparse_line(kDiskBytes / 512),
       "changeTrackPath=\"disk-ctk.vmdk\"", "ddb.adapterType = \"ide\"", "ddb.uuid=\"60 00\""});
  const auto facts =
      described(in_memory(build_vmdk(vmdk_content(kDiskBytes, 1, 9),
                                     {.grain_size = 16, .redundant = true, .descriptor = text})
                              .bytes));
  CHECK(codes(facts) == "");
  CHECK(facts->virtual_size == kDiskBytes);
  CHECK(facts->cluster_size == 8192u);
  CHECK(facts->identity == "f67f4aa4");
  CHECK(facts->backing_filename.empty());
  CHECK_FALSE(facts->compressed);
  CHECK(facts->specific == Json::parse(R"({
    "cid": 4135537316, "parent-cid": 4294967295, "create-type": "monolithicSparse",
    "extents": [{"virtual-size": 1048576, "filename": "memory", "cluster-size": 8192,
                 "format": ""}],
    "descriptor-version": 1,
    "header": {"version": 1, "flags": 3, "capacity": 1048576, "footer": false,
               "redundant-directory": true, "unclean-shutdown": false},
    "other-lines": {"changeTrackPath": "disk-ctk.vmdk"}, "ddb": {"adapterType": "ide", "uuid": "60 00"}})"));
  REQUIRE(facts->names.size() == 2);
  CHECK(facts->names[0].role == "extent");
  CHECK(facts->names[0].name == "self");
  CHECK_FALSE(facts->names[0].followed);
  CHECK(facts->names[1].role == "change tracking");
  CHECK(facts->names[1].name == "disk-ctk.vmdk");
  CHECK_FALSE(facts->names[1].followed);
}

TEST_CASE("vmdk describe: a stream-optimized image, with and without a footer") {
  for (const bool footer : {false, true}) {
    const auto facts = described(in_memory(image({.compressed = true, .footer = footer}).bytes));
    CHECK(codes(facts) == "");
    CHECK(facts->compressed);
    CHECK(facts->specific["extents"][0]["compressed"] == true);
    CHECK(facts->specific["header"]["footer"] == footer);
  }
}

TEST_CASE("vmdk describe: no line of a descriptor takes the place of another field") {
  const auto facts =
      described(vmdk_text("custom", {"RW 16 ZERO", "ddb=\"x\"", "ddb.a=\"y\"", "extents=\"x\"",
                                     "cid=\"x\"", "other-lines=\"x\""}));
  REQUIRE(facts);
  CHECK(facts->specific["extents"].is_array());
  CHECK(facts->specific["ddb"] == Json({{"a", "y"}}));
  CHECK(facts->specific["other-lines"]["ddb"] == "x");
  CHECK(facts->specific["other-lines"]["extents"] == "x");
}

TEST_CASE("vmdk describe: the extents of a descriptor, without opening them") {
  const auto facts = described(
      vmdk_text("custom", {"encoding=\"windows-1252\"", "CID=1", "parentCID=2",
                           "parentFileNameHint=\"C:\\vm\\base.vmdk\"", "RW 16 SPARSE \"s/1.vmdk\"",
                           "RW 8 FLAT \"/flat-\xe4\" 4", "RW 4 ZERO", "NOACCESS 4 FLAT \"x\" 0"}));
  CHECK(codes(facts) == "");
  CHECK(facts->virtual_size == 32 * 512);
  CHECK_FALSE(facts->cluster_size);
  CHECK(facts->backing_filename == "C:\\vm\\base.vmdk");
  CHECK(facts->specific["parent-cid"] == 2);
  CHECK(facts->specific["encoding"] == "windows-1252");
  const Json& extents = facts->specific["extents"];
  REQUIRE(extents.size() == 4);
  CHECK(extents[0] ==
        Json({{"virtual-size", 16 * 512}, {"filename", "s/1.vmdk"}, {"format", "SPARSE"}}));
  CHECK(extents[1]["filename"] == "/flat-\xc3\xa4");
  CHECK(extents[2]["format"] == "ZERO");
  REQUIRE(facts->names.size() == 4);
  CHECK(facts->names[0].followed);
  CHECK(facts->names[0].least_bytes() == 0);
  CHECK(facts->names[1].least_bytes() == 12 * 512);
  CHECK(facts->names[1].otherwise == std::vector<std::string>{"/flat-\xe4"});
  CHECK_FALSE(facts->names[2].followed);
  CHECK(facts->names[3].role == "parent");
  CHECK(facts->names[3].otherwise == std::vector<std::string>{"base.vmdk"});
}

TEST_CASE("vmdk describe: extents are taken from the folder of the image, as qemu does") {
  const std::string text = vmdk_text("custom", {"RW 8 FLAT \"a/b\" 0"});
  const ByteSpan bytes = as_bytes(text);
  const auto source = std::make_shared<const MemorySource>(
      std::vector<std::byte>(bytes.begin(), bytes.end()), "some/folder/disk.vmdk");
  CHECK(described(source)->specific["extents"][0]["filename"] == "some/folder/a/b");
}

// What stands in a descriptor, and the code of the rule that refuses it.
struct Refused {
  const char* code;
  std::string text;
};

std::vector<Refused> refused_descriptors() {
  const std::string extent = "RW 8 FLAT \"flat\" 0";
  std::vector<Refused> all = {
      {"descriptor-damaged", with_line("#") + std::string(1, '\0') + "RW 8 ZERO\n"},
      {"create-type", vmdk_text("unheard-of", {extent})},
      {"create-type", "# Disk DescriptorFile\n" + extent + "\n"},
      {"raw-device", vmdk_text("vmfsRawDeviceMap", {extent})},
      {"no-extents", vmdk_text("custom", {"NOACCESS 8 FLAT \"a\" 0"})},
      {"extent-count", vmdk_text("custom", std::vector<std::string>(4097, "RW 1 ZERO"))},
      {"descriptor-cut", "# Disk DescriptorFile\ncreateType=\"custom\"\n" + extent},
  };
  const std::vector<std::pair<const char*, std::string>> lines = {
      {"descriptor-line", "two words = 1"},
      {"encrypted", "encryptionKeys=\"vmware:key\""},
      {"encrypted", "iofilters=\"vmwarevmcrypt\""},
      {"descriptor-version", "version=4"},
      {"cid", "CID=xyz"},
      {"given-twice", "createType=\"custom\""},
      {"quotes", "parentFileNameHint=\"a"},
      {"extent-size", "RW 0 FLAT \"a\" 0"},
      {"extent-size", "RW x FLAT \"a\" 0"},
      {"disk-size", fmt::format("RW {} ZERO", kVmdkMaxSectors)},
      {"raw-device", "RW 8 VMFSRDM \"a\""},
      {"extent-type", "RW 8 BLOCKS \"a\""},
      {"extent-name", "RW 8 FLAT a 0"},
      {"extent-offset", "RW 8 FLAT \"a\" x"},
      {"extent-offset", fmt::format("RW 8 FLAT \"a\" {}", kVmdkMaxSectors - 7)},
      {"extent-line", "RW 8 SPARSE \"a\" 0"},
      {"parent-unclear", "parentCID=1"},
  };
  for (const auto& line : lines) all.push_back({line.first, with_line(line.second)});
  all.push_back(
      {"encoding", vmdk_text("custom", {"encoding=\"EBCDIC-7\"", "RW 8 FLAT \"\xe4\" 0"})});
  return all;
}

TEST_CASE("vmdk describe: what the reader refuses in a descriptor is told, by the rule's code") {
  for (const Refused& refused : refused_descriptors()) {
    CAPTURE(refused.code);
    CAPTURE(refused.text.substr(0, 200));
    const auto reason = parse_vmdk_descriptor(refused.text);
    REQUIRE_FALSE(reason);
    const auto facts = described(refused.text);
    CHECK(codes(facts) == refused.code);
    CHECK(facts->findings.at(0).message == reason.error().message);
    CHECK(facts->encrypted == (facts->findings[0].code == "encrypted"));
  }
}

TEST_CASE("vmdk describe: it goes on behind a line that is not understood") {
  const auto facts = described(vmdk_text(
      "vmfsRDM", {"CID=1", "gibberish", "RW 8 VMFSRDM \"rdm.vmdk\"", "RW 8 SPARSE \"b.vmdk\""}));
  CHECK(codes(facts) == "descriptor-line raw-device raw-device");
  CHECK(facts->identity == "00000001");
  CHECK(facts->virtual_size == 16 * 512);
  REQUIRE(facts->names.size() == 2);
  CHECK(facts->names[0].name == "rdm.vmdk");
  CHECK(facts->names[0].format == "VMFSRDM");
}

TEST_CASE("vmdk describe: findings are limited, however much is wrong") {
  const auto facts = described(vmdk_text("custom", std::vector<std::string>(5000, "gibberish")));
  REQUIRE(facts);
  CHECK(facts->findings.size() == kVmdkMaxProblems);
}

TEST_CASE("vmdk describe: damage of the header is told, and as much of the image as can be") {
  struct Damage {
    std::string code;
    size_t offset;
    uint8_t byte;
  };
  for (const Damage& damage :
       {Damage{"header-unsupported", 4, 4},            // version
        Damage{"header-unsupported", 11, 0x80},        // flags
        Damage{"header-damaged", 73, '\r'},            // line end
        Damage{"header-damaged", 20, 7},               // grainSize
        Damage{"header-limit (sizes-differ)", 19, 1},  // capacity
        Damage{"(unclean-shutdown)", 72, 1}, Damage{"capacity-too-small", 13, 7},
        Damage{"(sizes-differ)", 14, 1}}) {
    CAPTURE(damage.code);
    BuiltVmdk damaged = image();
    damaged.bytes[damage.offset] = std::byte{damage.byte};
    const Opened opened(in_memory(damaged.bytes));
    CHECK(opened.result.has_value() == damage.code.starts_with('('));
    const auto facts = described(in_memory(damaged.bytes));
    CHECK(codes(facts) == damage.code);
    CHECK(facts->virtual_size == kDiskBytes);
    CHECK(facts->specific["create-type"] == "monolithicSparse");
  }
}

TEST_CASE("vmdk describe: a descriptor or a footer that is not there") {
  BuiltVmdk damaged = image();
  store_le<uint64_t>(damaged.bytes, 28, 1 << 20);
  CHECK(codes(described(in_memory(damaged.bytes))) == "descriptor-beyond-end lone-extent");
  // One that wraps, and one above the limit.
  store_le<uint64_t>(damaged.bytes, 28, uint64_t{1} << 55);
  CHECK(codes(described(in_memory(damaged.bytes))) ==
        "header-damaged descriptor-beyond-end lone-extent");

  BuiltVmdk cut = image({.compressed = true, .footer = true});
  cut.bytes.resize(cut.bytes.size() - 512);
  CHECK(codes(described(in_memory(cut.bytes))) == "footer");
}

TEST_CASE("vmdk describe: a footer that says something else than the header") {
  for (const size_t field : {4u, 28u, 36u}) {  // version, descriptorOffset, descriptorSize
    BuiltVmdk stream = image({.compressed = true, .footer = true});
    const size_t footer = stream.bytes.size() - 1024;
    stream.bytes[footer + field] = std::byte{2};
    CHECK(codes(described(in_memory(stream.bytes))).starts_with("(footer-differs)"));
  }
}

TEST_CASE("vmdk describe: an embedded descriptor has one extent, SPARSE") {
  for (const char* line : {"RW 2048 FLAT \"a\" 0", "RW 2040 SPARSE \"a\"\nRW 8 SPARSE \"b\""}) {
    const std::string text = vmdk_text("monolithicSparse", {line});
    CHECK(codes(described(
              in_memory(build_vmdk(vmdk_content(kDiskBytes, 1, 9), {.descriptor = text}).bytes))) ==
          "embedded-extents");
  }
}

TEST_CASE("vmdk describe: an extent that is the image itself, or the same twice") {
  CHECK(codes(described(vmdk_text("custom", {"RW 1 FLAT \"image\" 0"}))) == "own-extent");
  CHECK(codes(described(vmdk_text("custom", {"RW 8 FLAT \"a\" 4", "RW 5 FLAT \"a\" 0"}))) ==
        "extents-overlap");
  CHECK(codes(described(vmdk_text("custom", {"RW 8 SPARSE \"a\"", "RW 5 FLAT \"a\" 9"}))) ==
        "extents-overlap");
  CHECK(codes(described(vmdk_text("custom", {"RW 8 FLAT \"a\" 4", "RW 4 FLAT \"a\" 0"}))) == "");
}

TEST_CASE("vmdk describe: extents without their descriptor") {
  const Bytes content = vmdk_content(kDiskBytes, 1, 9);
  BuiltEsx cowd = build_cowd(content);
  store_le<uint32_t>(cowd.bytes, 1648, 1);
  auto facts = described(in_memory(cowd.bytes));
  CHECK(codes(facts) == "(unclean-shutdown) lone-extent");
  CHECK(facts->virtual_size == kDiskBytes);
  CHECK(facts->cluster_size == 512u);
  CHECK(facts->specific["extents"][0]["format"] == "VMFSSPARSE");
  store_le<uint32_t>(cowd.bytes, 4, 2);
  CHECK(codes(described(in_memory(cowd.bytes))) == "header-unsupported lone-extent");

  BuiltEsx sesparse = build_se_sparse(content);
  facts = described(in_memory(sesparse.bytes));
  CHECK(codes(facts) == "lone-extent");
  CHECK(facts->virtual_size == kDiskBytes);
  CHECK(facts->cluster_size == 4096u);
  store_le<uint64_t>(sesparse.bytes, 40, 1);
  CHECK(codes(described(in_memory(sesparse.bytes))) == "header-unsupported lone-extent");

  facts = described(in_memory(build_vmdk(content, {}).bytes));
  CHECK(codes(facts) == "lone-extent");
  CHECK(facts->specific["extents"][0]["format"] == "SPARSE");
}

TEST_CASE("vmdk describe: a descriptor above the limit is read as far as the limit") {
  std::string text = vmdk_text("custom", {"RW 8 FLAT \"flat\" 0"});
  text.resize(kVmdkMaxDescriptorBytes + 1, '\n');
  const auto facts = described(text);
  CHECK(codes(facts) == "descriptor-size");
  CHECK(facts->virtual_size == 4096);
}

TEST_CASE("vmdk describe: what is no vmdk image, or has no whole header, is refused") {
  CHECK_FALSE(described("some text\n"));
  CHECK_FALSE(described(""));
  BuiltVmdk cut = image();
  cut.bytes.resize(511);
  CHECK_FALSE(described(in_memory(cut.bytes)));
}

}  // namespace
}  // namespace underlay::vmdk_test
