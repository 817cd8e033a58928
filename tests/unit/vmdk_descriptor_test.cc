#include "formats/vmdk/vmdk_descriptor.h"

#include <doctest/doctest.h>

#include "formats/vmdk/vmdk_layout.h"
#include "tests/support/vmdk_builder.h"

namespace underlay::vmdk_test {
namespace {

using Access = VmdkExtentLine::Access;
using Kind = VmdkExtentLine::Kind;

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// A descriptor with `line` as its line 4.
Result<VmdkDescriptor> with_line(const std::string& line) {
  return parse_vmdk_descriptor(vmdk_text("custom", {line, "RW 8 FLAT \"last\" 0"}));
}

TEST_CASE("vmdk descriptor: the fields and extents are found") {
  const auto d = parse_vmdk_descriptor(
      "# Disk DescriptorFile\n# CID=11111111\nversion=1\nencoding=\"UTF-8\"\nCID=fffffffe\n"
      "parentCID=12ab\nisNativeSnapshot=\"no\"\ncreateType=\"twoGbMaxExtentSparse\"\n"
      "parentFileNameHint=\"base = 1.vmdk\"\n\n# Extents\n"
      "RW 4192256 SPARSE \"disk-s001.vmdk\"\nRDONLY 63 FLAT \"a = b #c.bin\" 12\n"
      "NOACCESS 8 ZERO\nRW 16 VMFS \"esx-flat.vmdk\"\n\nddb.adapterType = \"lsilogic\"\n");
  REQUIRE(d);
  CHECK(d->cid == 0xfffffffe);
  CHECK(d->parent_cid == 0x12ab);
  CHECK(d->parent_file_name_hint.name == "base = 1.vmdk");
  REQUIRE(d->extents.size() == 4);
  CHECK(d->extents[0].kind == Kind::kSparse);
  CHECK(d->extents[0].sectors == 4192256);
  CHECK(d->extents[0].file.name == "disk-s001.vmdk");
  CHECK(d->extents[0].line == 12);
  CHECK(d->extents[1].access == Access::kReadOnly);
  CHECK(d->extents[1].file.name == "a = b #c.bin");
  CHECK(d->extents[1].offset == 12);
  CHECK(d->extents[2].access == Access::kNoAccess);
  CHECK(d->extents[2].kind == Kind::kZero);
  CHECK(d->extents[3].kind == Kind::kFlat);
  CHECK(d->extents[3].offset == 0);
}

TEST_CASE("vmdk descriptor: case of keys, blanks, CRLF, BOM and NUL padding do not matter") {
  const auto d = parse_vmdk_descriptor(
      std::string("\xef\xbb\xbf# Disk DescriptorFile\r\n\t cid  =  00000001 \r\nPARENTCID = "
                  "ffffffff\r\nCreateType\t= \"MONOLITHICFLAT\"\r\n  RW  8\tFLAT \"a\"  0 \r\n") +
      std::string(100, '\0'));
  REQUIRE(d);
  CHECK(d->cid == 1u);
  CHECK_FALSE(d->parent_cid);
  CHECK(d->extents.size() == 1);
}

// Each line refuses the image, and is named.
void check_refused(std::initializer_list<const char*> lines) {
  for (const char* line : lines) {
    CAPTURE(line);
    const auto d = with_line(line);
    REQUIRE_FALSE(d);
    CHECK(contains(d.error().message, "line 4: "));
  }
}

TEST_CASE("vmdk descriptor: an extent's access or size that is not understood refuses the image") {
  check_refused({
      "RWX 8 FLAT \"a\" 0",
      "rw 8 FLAT \"a\" 0",
      "WRONLY 8 FLAT \"a\" 0",
      "RW",
      "RW 8",
      "RW -1 FLAT \"a\" 0",
      "RW 0 FLAT \"a\" 0",
      "RW +8 FLAT \"a\" 0",
      "RW 8x FLAT \"a\" 0",
      "RW 0x8 FLAT \"a\" 0",
      "RW 8.5 FLAT \"a\" 0",
      "RW 18446744073709551616 FLAT \"a\" 0",
      "RW 18446744073709551615 FLAT \"a\" 0",
      "RW 18014398509481983 FLAT \"a\" 1",
      "RW\v8 FLAT \"a\" 0",
  });
  CHECK(with_line("RW 8 FLAT \"a\" 0"));
}

TEST_CASE(
    "vmdk descriptor: an extent's type, name or offset that is not understood refuses the image") {
  check_refused({
      "RW 8 FLATS \"a\" 0",
      "RW 8 flat \"a\" 0",
      "RW 8 \"a\" 0",
      "RW 8 FLAT",
      "RW 8 FLAT a 0",
      "RW 8 FLAT \"\" 0",
      "RW 8 FLAT \"a 0",
      "RW 8 FLAT \"a\"",
      "RW 8 FLAT \"a\" x",
      "RW 8 FLAT \"a\" -1",
      "RW 8 FLAT \"a\"0",
      "RW 8 FLAT \"a\" 0 0",
      "RW 8 FLAT \"a\" 18014398509481983",
      "RW 8 FLAT \"a\" 18446744073709551615",
      "RW 8 FLAT \"a\" 0 partitionUUID \"x\"",
      "RW 8 SPARSE",
      "RW 8 SPARSE \"a\" 0",
      "RW 8 SPARSE \"a\" junk",
      "RW 8 ZERO \"a\"",
      "RW 8 ZERO 0",
      "RW 8 VMFS",
      "RW 8 VMFS \"a\" x",
      "RW 8 SESPARSE",
      "RW 8 VMFSSPARSE \"a\" 0",
      "RW 8 VMFSRDM \"a\"",
      "RW 8 VMFSRAW \"a\"",
  });
}

TEST_CASE("vmdk descriptor: a line or value that is not understood refuses the image") {
  check_refused({
      "gibberish",
      "= 1",
      "two words = 1",
      "CID=",
      "CID=xyz",
      "CID=123456789",
      "CID=-1",
      "CID=\"1",
      "parentCID=1 2",
      "createType=\"custom\"",
      "version=0",
      "version=4",
      "version=one",
      "parentFileNameHint=\"a\"b",
      "encryptionKeys=\"vmware:key\"",
      "iofilters=\"vmwarevmcrypt\"",
  });
  CHECK(with_line("ddb.comment = \"RW 8 FLAT\""));
}

TEST_CASE("vmdk descriptor: a key that decides and stands twice is ambiguous") {
  for (const char* key : {"CID=1", "parentCID=ffffffff", "createType=\"custom\"",
                          "parentFileNameHint=\"\"", "encoding=\"UTF-8\""}) {
    CAPTURE(key);
    const auto d = parse_vmdk_descriptor(
        fmt::format("{}\n{}\ncreateType=custom\nRW 8 FLAT \"a\" 0\n", key, key));
    REQUIRE_FALSE(d);
    CHECK(contains(d.error().message, "given twice"));
  }
}

TEST_CASE("vmdk descriptor: CID is not found inside parentCID, comments or values") {
  const auto d = parse_vmdk_descriptor(
      "#CID=1\nparentCID=ffffffff\nddb.x=\"CID=2\"\ncreateType=custom\nRW 8 FLAT \"CID=3\" 0\n");
  REQUIRE(d);
  CHECK_FALSE(d->cid);
}

TEST_CASE("vmdk descriptor: types of disk that are not served are refused by name") {
  for (const char* type : {"vmfsRaw", "vmfsRawDeviceMap", "vmfsPassthroughRawDeviceMap", "vmfsRDM",
                           "unheard-of", ""}) {
    CAPTURE(type);
    const auto d = parse_vmdk_descriptor(vmdk_text(type, {"RW 8 FLAT \"a\" 0"}));
    REQUIRE_FALSE(d);
    CHECK(d.error().kind == ErrorKind::kUnsupported);
    CHECK(contains(d.error().message, fmt::format("\"{}\"", type)));
  }
  CHECK_FALSE(parse_vmdk_descriptor("version=1\nRW 8 FLAT \"a\" 0\n"));
}

TEST_CASE("vmdk descriptor: without an extent that may be read there is no disk") {
  CHECK_FALSE(parse_vmdk_descriptor(vmdk_text("custom", {})));
  CHECK_FALSE(parse_vmdk_descriptor(vmdk_text("custom", {"NOACCESS 8 FLAT \"a\" 0"})));
  CHECK_FALSE(parse_vmdk_descriptor(""));
}

TEST_CASE("vmdk descriptor: a parent has a CID and a name, or there is none") {
  const auto parse = [](const std::string& keys) {
    return parse_vmdk_descriptor(vmdk_text("custom", {keys, "RW 8 FLAT \"a\" 0"}));
  };
  CHECK(parse("parentCID=1\nparentFileNameHint=\"b\"")->parent_cid == 1u);
  CHECK_FALSE(parse("parentCID=FFFFFFFF\nparentFileNameHint=\"\"")->parent_cid);
  CHECK_FALSE(parse("")->parent_cid);
  CHECK_FALSE(parse("parentCID=1"));
  CHECK_FALSE(parse("parentCID=1\nparentFileNameHint=\"\""));
  CHECK_FALSE(parse("parentFileNameHint=\"b\""));
  CHECK_FALSE(parse("parentCID=ffffffff\nparentFileNameHint=\"b\""));
}

TEST_CASE("vmdk descriptor: every type of disk that has its data in files is served") {
  for (const char* type :
       {"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
        "2GbMaxExtentSparse", "2GbMaxExtentFlat", "streamOptimized", "vmfs", "vmfsThin",
        "vmfsPreallocated", "vmfsEagerZeroedThick", "vmfsSparse", "seSparse", "custom",
        "fullDevice", "partitionedDevice", "VMFSSPARSE"}) {
    CAPTURE(type);
    CHECK(parse_vmdk_descriptor(vmdk_text(type, {"RW 8 FLAT \"a\" 0"})));
  }
}

TEST_CASE("vmdk descriptor: raw-device mappings are refused with the reason and what to do") {
  for (const std::string& text :
       {vmdk_text("vmfsRawDeviceMap", {"RW 8 FLAT \"a\" 0"}),
        vmdk_text("vmfsPassthroughRawDeviceMap", {"RW 8 FLAT \"a\" 0"}),
        vmdk_text("custom", {"RW 8 VMFSRDM \"a\""}), vmdk_text("custom", {"RW 8 VMFSRAW \"a\""})}) {
    const auto d = parse_vmdk_descriptor(text);
    REQUIRE_FALSE(d);
    CHECK(d.error().kind == ErrorKind::kUnsupported);
    CHECK(contains(d.error().message, "its data is in no file"));
    CHECK(contains(d.error().message, "vmkfstools -i"));
  }
}

Result<VmdkDescriptor> with_encoding(std::string_view encoding, std::string_view name) {
  return parse_vmdk_descriptor(vmdk_text(
      "custom", {fmt::format("encoding={}", encoding), fmt::format("RW 8 FLAT \"{}\" 0", name)}));
}

TEST_CASE("vmdk descriptor: names are converted from their encoding, and kept as written") {
  const auto d = with_encoding("\"windows-1252\"", "\xe4");
  REQUIRE(d);
  CHECK(d->extents[0].file.name == "\xc3\xa4");
  CHECK(d->extents[0].file.as_written == "\xe4");
  // The second byte of this character is a backslash's.
  const auto hint = parse_vmdk_descriptor(vmdk_text(
      "custom",
      {"encoding=Shift_JIS", "parentCID=1", "parentFileNameHint=\"\x95\x5c.vmdk\"", "RW 8 ZERO"}));
  REQUIRE(hint);
  CHECK(hint->parent_file_name_hint.name == "\xe8\xa1\xa8.vmdk");
  CHECK(hint->parent_file_name_hint.as_written == "\x95\x5c.vmdk");
}

TEST_CASE("vmdk descriptor: names in UTF-8, in ASCII or without an encoding stay as they are") {
  for (const char* encoding : {"\"utf-8\"", "UTF-8"}) {
    const auto d = with_encoding(encoding, "\xc3\xa4");
    REQUIRE(d);
    CHECK(d->extents[0].file.name == "\xc3\xa4");
    CHECK(d->extents[0].file.as_written.empty());
  }
  CHECK(with_encoding("Shift_JIS", "a")->extents[0].file.as_written.empty());
  CHECK(with_encoding("unheard-of", "a"));
  CHECK(with_line("RW 8 FLAT \"\xe4\" 0")->extents[0].file.name == "\xe4");
}

TEST_CASE("vmdk descriptor: a name that is not in its encoding is only what is written") {
  const auto d = with_encoding("GBK", "\xff\xff");
  REQUIRE(d);
  CHECK(d->extents[0].file.name == "\xff\xff");
  CHECK(d->extents[0].file.as_written.empty());
}

TEST_CASE("vmdk descriptor: a name in an unknown encoding is refused, with both") {
  const auto refused = with_encoding("\"EBCDIC-7\"", "disk-\xe4");
  REQUIRE_FALSE(refused);
  CHECK(contains(refused.error().message, "EBCDIC-7"));
  CHECK(contains(refused.error().message, "disk-"));
}

TEST_CASE("vmdk descriptor: files of changed-block tracking and of digests are no extents") {
  const auto d = parse_vmdk_descriptor(
      vmdk_text("vmfs", {"changeTrackPath=\"a-ctk.vmdk\"", "digestFilename=\"a-digest.vmdk\"",
                         "digestType=\"CBRC\"", "RW 8 VMFS \"a-flat.vmdk\""}));
  REQUIRE(d);
  CHECK(d->extents.size() == 1);
}

TEST_CASE("vmdk descriptor: the number of extents and their sum are limited") {
  const std::vector<std::string> most(kVmdkMaxExtents, "RW 1 ZERO");
  CHECK(parse_vmdk_descriptor(vmdk_text("custom", most)));
  const auto many = parse_vmdk_descriptor(
      vmdk_text("custom", std::vector<std::string>(40000, "RW 1 FLAT \"a\" 0")));
  REQUIRE_FALSE(many);
  CHECK(many.error().kind == ErrorKind::kLimit);

  const std::string half = fmt::format("RW {} ZERO", kVmdkMaxSectors / 2 + 1);
  CHECK(parse_vmdk_descriptor(vmdk_text("custom", {half})));
  const auto sum = parse_vmdk_descriptor(vmdk_text("custom", {half, half}));
  REQUIRE_FALSE(sum);
  CHECK(sum.error().kind == ErrorKind::kLimit);
}

TEST_CASE("vmdk descriptor: the end of a longer text that qemu wrote over does not count") {
  const std::string good = vmdk_text("custom", {"RW 8 FLAT \"a\" 128"});
  const std::string nul(1, '\0');
  for (size_t digits_lost = 2; digits_lost <= 7; ++digits_lost) {
    const std::string rest = good.substr(good.size() - (digits_lost - 1));
    CHECK(parse_vmdk_descriptor(good + nul + rest + nul));
    CHECK_FALSE(parse_vmdk_descriptor(good + nul + "x" + rest.substr(1) + nul));
  }
  CHECK(parse_vmdk_descriptor(good + nul + nul + good.substr(good.size() - 1)));
  CHECK_FALSE(parse_vmdk_descriptor(good + nul + good.substr(good.size() - 7)));
}

TEST_CASE("vmdk descriptor: text behind NUL bytes, and an offset cut off, are damage") {
  const std::string good = vmdk_text("custom", {"RW 8 FLAT \"a\" 128"});
  CHECK(parse_vmdk_descriptor(good));
  CHECK_FALSE(parse_vmdk_descriptor(good + std::string(1, '\0') + "RW 8 ZERO\n"));
  const std::string cut = good.substr(0, good.size() - 1);
  CHECK_FALSE(parse_vmdk_descriptor(cut));
  CHECK(parse_vmdk_descriptor(cut + std::string(1, '\0')));
}

TEST_CASE("vmdk descriptor: cut anywhere, it is refused or gives the extents before the cut") {
  const std::string text = vmdk_text("custom", {"RW 128 FLAT \"first\" 17", "RW 16 SPARSE \"b\"",
                                                "RW 100 VMFS \"c\"", "RW 7 ZERO"});
  const auto whole = parse_vmdk_descriptor(text);
  REQUIRE(whole);
  for (size_t size = 0; size < text.size(); ++size) {
    const auto cut = parse_vmdk_descriptor(text.substr(0, size));
    for (size_t i = 0; cut && i < cut->extents.size(); ++i) {
      CHECK(cut->extents[i].sectors == whole->extents[i].sectors);
      CHECK(cut->extents[i].kind == whole->extents[i].kind);
      CHECK(cut->extents[i].file.name == whole->extents[i].file.name);
      CHECK(cut->extents[i].offset == whole->extents[i].offset);
    }
  }
}

TEST_CASE("vmdk descriptor: signs at the start of a file") {
  using Signs = VmdkDescriptorSigns;
  CHECK(vmdk_descriptor_signs("# Disk DescriptorFile\nversion=1\n") == Signs::kHeader);
  CHECK(vmdk_descriptor_signs("\xef\xbb\xbf\r\n# made by X\r\n#  disk descriptorFILE\r\n") ==
        Signs::kHeader);
  CHECK(vmdk_descriptor_signs("version=1\ncreateType = \"vmfs\"\n") == Signs::kLines);
  CHECK(vmdk_descriptor_signs("x\nRW 100 SPARSE \"a\"\n") == Signs::kLines);
  CHECK(vmdk_descriptor_signs("version=1\n# Disk DescriptorFile\n") == Signs::kNone);
  CHECK(vmdk_descriptor_signs("RW and createType in prose\n") == Signs::kNone);
  CHECK(vmdk_descriptor_signs("") == Signs::kNone);
  CHECK(vmdk_descriptor_signs(std::string_view("\0createType=x\n", 14)) == Signs::kNone);
}

}  // namespace
}  // namespace underlay::vmdk_test
