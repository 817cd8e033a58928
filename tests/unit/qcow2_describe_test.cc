// What a qcow2 image says of itself, also when it is damaged; each finding has its test.
#include "formats/qcow2/qcow2_describe.h"

#include "tests/support/inspected.h"
#include "tests/support/luks_builder.h"
#include "tests/support/qcow2_builder.h"

namespace underlay {
namespace {

using Bytes = Qcow2Builder::Bytes;
using Kind = Finding::Kind;
using test::codes_of;
using test::finding_in;
using test::Inspection;

constexpr uint32_t kBackingFormat = 0xe2792aca;
constexpr uint32_t kDataFile = 0x44415441;
constexpr uint32_t kFeatureNames = 0x6803f857;
constexpr uint32_t kBitmaps = 0x23852875;
constexpr uint32_t kEncryption = 0x0537be77;

ImageFacts facts_of(const Bytes& file) {
  const Inspection inspection(file);
  auto facts = describe_qcow2(inspection.file);
  REQUIRE_MESSAGE(facts, facts.error().to_string());
  return *std::move(facts);
}

// The image has this finding and no other one.
void check_only(const Bytes& file, std::string_view code, Kind kind, std::string_view words) {
  const ImageFacts facts = facts_of(file);
  CHECK(codes_of(facts.findings) == std::vector<std::string>{std::string(code)});
  const Finding found = finding_in(facts.findings, code);
  CAPTURE(found.message);
  CHECK(found.kind == kind);
  CHECK(found.message.find(words) != std::string::npos);
}

std::string feature_name(uint8_t kind, uint8_t bit, std::string_view name) {
  std::string entry(48, '\0');
  entry[0] = static_cast<char>(kind);
  entry[1] = static_cast<char>(bit);
  name.copy(entry.data() + 2, 46);
  return entry;
}

}  // namespace

TEST_CASE("qcow2 describe: a whole image has no findings, and qemu-img's fields in its order") {
  Qcow2Builder builder({.size = 100000});
  builder.put_data(0, 1);
  const ImageFacts facts = facts_of(builder.file);
  CHECK(facts.findings.empty());
  CHECK(facts.virtual_size == 100000);
  CHECK(facts.cluster_size == 512);
  CHECK_FALSE(facts.encrypted);
  CHECK_FALSE(facts.dirty);
  CHECK(facts.names.empty());
  CHECK(facts.specific.dump() ==
        R"({"compat":"1.1","compression-type":"zlib","lazy-refcounts":false,"refcount-bits":16,)"
        R"("corrupt":false,"extended-l2":false,"version":3,"header-length":112})");
}

TEST_CASE("qcow2 describe: version 2 has no fields of version 3") {
  const ImageFacts facts = facts_of(Qcow2Builder({.version = 2}).file);
  CHECK(facts.findings.empty());
  CHECK(facts.specific.dump() ==
        R"({"compat":"0.10","compression-type":"zlib","refcount-bits":16,"version":2,)"
        R"("header-length":72})");
}

TEST_CASE("qcow2 describe: features by name; an unknown incompatible one must not be served") {
  Qcow2Builder builder({.cluster_bits = 14, .extended_l2 = true, .codec = Codec::kZstd});
  builder.add_extension(kFeatureNames, feature_name(0, 40, "time\ntravel"));
  builder.set64(72, builder.get64(72) | 1ull << 40);
  builder.set64(80, 1);
  const ImageFacts facts = facts_of(builder.file);
  CHECK(facts.specific["compression-type"] == "zstd");
  CHECK(facts.specific["lazy-refcounts"] == true);
  CHECK(facts.specific["extended-l2"] == true);
  CHECK(facts.specific["incompatible-features"].dump() ==
        R"([{"bit":3,"name":"compression type"},{"bit":4,"name":"extended L2 entries"},)"
        R"({"bit":40,"name":"time\ntravel"}])");
  CHECK(facts.specific["compatible-features"].dump() == R"([{"bit":0,"name":"lazy refcounts"}])");
  check_only(builder.file, "unknown-incompatible-feature", Kind::kCorruption,
             "bit 40 (\"time\\x0atravel\")");
}

TEST_CASE("qcow2 describe: unknown features of the other kinds are worth knowing") {
  Qcow2Builder compatible({});
  compatible.set64(80, 1ull << 63);
  check_only(compatible.file, "unknown-compatible-feature", Kind::kNotice, "bit 63 (\"unnamed\")");
  Qcow2Builder autoclear({});
  autoclear.set64(88, 4);
  check_only(autoclear.file, "unknown-autoclear-feature", Kind::kNotice, "bit 2");
}

TEST_CASE("qcow2 describe: header rules that are broken do not hide the rest") {
  struct Case {
    uint64_t at;
    uint32_t value;
    std::string_view code;
  };
  const Case cases[] = {{4, 7, "version"},
                        {20, 60, "cluster-bits"},
                        {100, 100, "header-length"},
                        {36, 0, "l1-table"},
                        {72 + 4, 8, "compression-type"}};
  for (const Case& wrong : cases) {
    CAPTURE(wrong.code);
    Qcow2Builder builder({.size = 100000});
    builder.set32(wrong.at, wrong.value);
    check_only(builder.file, wrong.code, Kind::kCorruption, "");
    CHECK(facts_of(builder.file).virtual_size == 100000);
  }
  Qcow2Builder snapshots({});
  snapshots.set32(60, 1 << 20);
  const ImageFacts facts = facts_of(snapshots.file);
  CHECK(finding_in(facts.findings, "snapshot-table").kind == Kind::kCorruption);
}

TEST_CASE("qcow2 describe: states of the image") {
  Qcow2Builder dirty({});
  dirty.set64(72, 1);
  check_only(dirty.file, "dirty", Kind::kNotice, "dirty bit");
  CHECK(facts_of(dirty.file).dirty);
  Qcow2Builder corrupt({});
  corrupt.set64(72, 2);
  check_only(corrupt.file, "marked-corrupt", Kind::kNotice, "corrupt bit");
  CHECK(facts_of(corrupt.file).specific["corrupt"] == true);
  Qcow2Builder refcounts({});
  refcounts.set32(96, 7);
  check_only(refcounts.file, "refcount-order", Kind::kNotice, "refcount_order is 7");
}

TEST_CASE("qcow2 describe: the backing file's name and format") {
  Qcow2Builder stated({});
  stated.add_extension(kBackingFormat, "raw");
  stated.set_backing_name("base.img");
  const ImageFacts facts = facts_of(stated.file);
  CHECK(facts.findings.empty());
  CHECK(facts.backing_filename == "base.img");
  CHECK(facts.backing_filename_format == "raw");
  REQUIRE(facts.names.size() == 1);
  CHECK(facts.names[0].role == "backing file");
  CHECK(facts.names[0].name == "base.img");
  CHECK(facts.names[0].format == "raw");

  Qcow2Builder unstated({});
  unstated.set_backing_name("base.img");
  check_only(unstated.file, "backing-format-unstated", Kind::kNotice, "\"base.img\"");
  Qcow2Builder protocol({});
  protocol.add_extension(kBackingFormat, "raw");
  protocol.set_backing_name("json:{}");
  check_only(protocol.file, "backing-file-protocol", Kind::kCorruption, "\"json:{}\"");
  Qcow2Builder outside({});
  outside.add_extension(kBackingFormat, "raw");
  outside.set_backing_name("x");
  outside.set32(16, 600);
  const ImageFacts cut = facts_of(outside.file);
  CHECK(finding_in(cut.findings, "backing-file-name").kind == Kind::kCorruption);
}

TEST_CASE("qcow2 describe: data files, named and unnamed, used and unused") {
  Qcow2Builder named({.external_data = true});
  named.add_extension(kDataFile, "disk.data");
  named.set64(88, 2);
  const ImageFacts facts = facts_of(named.file);
  CHECK(facts.findings.empty());
  CHECK(facts.specific["data-file"] == "disk.data");
  CHECK(facts.specific["data-file-raw"] == true);
  REQUIRE(facts.names.size() == 1);
  CHECK(facts.names[0].role == "data file");

  check_only(Qcow2Builder({.external_data = true}).file, "data-file-unnamed", Kind::kCorruption,
             "qemu-img amend");
  Qcow2Builder protocol({.external_data = true});
  protocol.add_extension(kDataFile, "nbd://host/");
  check_only(protocol.file, "data-file-protocol", Kind::kCorruption, "nbd://host/");
  Qcow2Builder unused({});
  unused.add_extension(kDataFile, "disk.data");
  check_only(unused.file, "data-file-unused", Kind::kNotice, "disk.data");
  CHECK(facts_of(unused.file).names.size() == 1);
  Qcow2Builder both({.external_data = true});
  both.add_extension(kDataFile, "disk.data");
  both.add_extension(kBackingFormat, "raw");
  both.set_backing_name("base.img");
  both.set64(88, 2);
  check_only(both.file, "backing-file-with-raw-data-file", Kind::kCorruption, "exclude");
}

TEST_CASE("qcow2 describe: header extensions that are damaged or not known") {
  Qcow2Builder unknown({});
  unknown.add_extension(0x12345678, "what");
  check_only(unknown.file, "unknown-extension", Kind::kNotice, "0x12345678 (4 bytes)");
  Qcow2Builder twice({});
  twice.add_extension(kBackingFormat, "raw");
  twice.add_extension(kBackingFormat, "vmdk");
  twice.set_backing_name("base.img");
  check_only(twice.file, "header-extensions", Kind::kCorruption, "stands twice");
  CHECK(facts_of(twice.file).backing_filename_format == "raw");
  Qcow2Builder longer({});
  longer.add_extension(kBackingFormat, "raw");
  longer.set32(116, 1 << 20);
  check_only(longer.file, "header-extensions", Kind::kCorruption, "only");
}

TEST_CASE("qcow2 describe: structures that overlap or lie behind the file's end") {
  Qcow2Builder overlap({});
  overlap.append(Bytes(512));
  overlap.set64(48, overlap.l1_offset());
  overlap.set32(56, 1);
  check_only(overlap.file, "structures-overlap", Kind::kCorruption, "refcount table");
  Qcow2Builder beyond({});
  beyond.set64(48, 1 << 30);
  beyond.set32(56, 1);
  check_only(beyond.file, "structure-beyond-end", Kind::kCorruption, "refcount table");
}

TEST_CASE("qcow2 describe: snapshots with all that their entries hold") {
  Qcow2Builder builder({});
  builder.put_snapshots({{.id = "1", .name = "first", .disk_size = 65536, .extra_bytes = 24},
                         {.id = "2", .name = "", .disk_size = 65536, .extra_bytes = 16}});
  const uint64_t entry = builder.get64(64);
  builder.set32(entry + 16, 1700000000);
  builder.set32(entry + 20, 5000);
  builder.set64(entry + 24, 12345678);
  builder.set32(entry + 32, 9);
  builder.set64(entry + 40, 4096);  // the extra data's word counts
  builder.set64(entry + 56, 77);
  const ImageFacts facts = facts_of(builder.file);
  CHECK(facts.findings.empty());
  REQUIRE(facts.snapshots.size() == 2);
  const SnapshotFacts& first = facts.snapshots[0];
  CHECK(first.id == "1");
  CHECK(first.name == "first");
  CHECK(first.vm_state_size == 4096);
  CHECK(first.date_sec == 1700000000);
  CHECK(first.date_nsec == 5000);
  CHECK(first.vm_clock_nsec == 12345678);
  CHECK(first.icount == 77);
  CHECK(first.disk_size == 65536);
  CHECK_FALSE(facts.snapshots[1].icount);
}

TEST_CASE("qcow2 describe: snapshots that are damaged leave the others") {
  Qcow2Builder bare({});
  bare.put_snapshots({{.id = "1", .name = "x", .extra_bytes = 0}});
  check_only(bare.file, "snapshot-without-disk-size", Kind::kNotice, "version 3 needs 16");
  CHECK_FALSE(facts_of(bare.file).snapshots[0].disk_size);
  Qcow2Builder damaged({});
  damaged.put_snapshots({{.id = "1", .name = "x"}, {.id = "2", .name = "y"}});
  damaged.set32(damaged.get64(64) + 64 + 36, 1 << 20);
  check_only(damaged.file, "snapshot-table-damaged", Kind::kNotice, "extra data");
  CHECK(facts_of(damaged.file).snapshots.size() == 1);
  Qcow2Builder external({.external_data = true});
  external.add_extension(kDataFile, "disk.data");
  external.put_snapshots({{.id = "1", .name = "x"}});
  check_only(external.file, "snapshots-with-data-file", Kind::kNotice, "nb_snapshots is 1");
}

TEST_CASE("qcow2 describe: bitmaps") {
  Qcow2Builder builder({});
  builder.put_bitmaps({{.name = "one", .table = {0}, .granularity_bits = 16, .flags = 2},
                       {.name = "two", .table = {0}, .granularity_bits = 9, .flags = 0}});
  const ImageFacts facts = facts_of(builder.file);
  CHECK(facts.findings.empty());
  CHECK(facts.specific["bitmaps"].dump() ==
        R"([{"flags":["auto"],"name":"one","granularity":65536},)"
        R"({"flags":[],"name":"two","granularity":512}])");

  Qcow2Builder in_use({});
  in_use.put_bitmaps({{.name = "one", .table = {0}, .flags = 1}});
  check_only(in_use.file, "bitmap-unusable", Kind::kNotice, "bitmap \"one\": is inconsistent");
  CHECK(facts_of(in_use.file).specific["bitmaps"][0]["flags"][0] == "in-use");
  Qcow2Builder huge({});
  huge.put_bitmaps({{.name = "one", .table = {0}, .granularity_bits = 200}});
  check_only(huge.file, "bitmap-unusable", Kind::kNotice, "granularity_bits is 200");

  Qcow2Builder outdated({});
  outdated.put_bitmaps({{.name = "one", .table = {0}}});
  outdated.set64(88, 0);
  check_only(outdated.file, "bitmaps-outdated", Kind::kNotice, "autoclear feature bit 0");
  CHECK_FALSE(facts_of(outdated.file).specific.contains("bitmaps"));
  Qcow2Builder damaged({});
  const uint64_t directory = damaged.put_bitmaps({{.name = "one", .table = {0}}});
  damaged.set32(directory + 16, 0x01100000);  // name_size 0
  check_only(damaged.file, "bitmap-directory-damaged", Kind::kNotice, "name_size is 0");
  Qcow2Builder extension({});
  extension.add_extension(kBitmaps, "short");
  extension.set64(88, 1);
  check_only(extension.file, "bitmaps-extension", Kind::kNotice, "must be 24");
}

TEST_CASE("qcow2 describe: encryption, without its key") {
  Qcow2Builder aes({});
  aes.set32(32, 1);
  check_only(aes.file, "encryption-aes", Kind::kCorruption, "crypt_method is 1");
  CHECK(facts_of(aes.file).encrypted);
  CHECK(facts_of(aes.file).specific["encrypt"].dump() == R"({"format":"aes"})");
  Qcow2Builder unknown({});
  unknown.set32(32, 3);
  check_only(unknown.file, "encryption-unknown", Kind::kCorruption, "crypt_method is 3");
  Qcow2Builder unused({});
  unused.add_extension(kEncryption, std::string(16, '\0'));
  check_only(unused.file, "encryption-header-unused", Kind::kCorruption, "only images");
  Qcow2Builder lost({});
  lost.set32(32, 2);
  check_only(lost.file, "luks-header", Kind::kCorruption, "has 0 bytes, not 16");
}

TEST_CASE("qcow2 describe: LUKS by qemu-img's field names; ciphers that are not served") {
  const auto image_of = [](const LuksBuilder& luks) {
    Qcow2Builder builder({});
    builder.set32(32, 2);
    Bytes pointer(16);
    store_be(MutableByteSpan(pointer), 0, builder.append(luks.container));
    store_be(MutableByteSpan(pointer), 8, uint64_t{luks.container.size()});
    builder.add_extension(kEncryption, as_text(pointer));
    return builder.file;
  };
  LuksBuilder luks("key");
  const ImageFacts facts = facts_of(image_of(luks));
  CHECK(facts.findings.empty());
  const auto& encrypt = facts.specific["encrypt"];
  CHECK(encrypt["format"] == "luks");
  CHECK(encrypt["cipher-alg"] == "aes-256");
  CHECK(encrypt["cipher-mode"] == "xts");
  CHECK(encrypt["ivgen-alg"] == "plain64");
  CHECK(encrypt["hash-alg"] == "sha256");
  CHECK_FALSE(encrypt.contains("ivgen-hash-alg"));
  REQUIRE(encrypt["slots"].size() == 8);
  CHECK(encrypt["slots"][0]["active"] == true);
  CHECK(encrypt["slots"][0]["stripes"] == 4000);
  CHECK(encrypt["slots"][1]["active"] == false);
  CHECK_FALSE(encrypt["slots"][1].contains("iters"));

  luks.set_text(40, "cbc-essiv:sha256");
  check_only(image_of(luks), "luks-header", Kind::kCorruption, "essiv");
  const ImageFacts other = facts_of(image_of(luks));
  CHECK(other.specific["encrypt"]["ivgen-alg"] == "essiv");
  CHECK(other.specific["encrypt"]["ivgen-hash-alg"] == "sha256");
  CHECK(other.specific["encrypt"]["cipher-alg"] == "aes-512");
}

TEST_CASE("qcow2 describe: what is no qcow2 fails, and so does a cut header") {
  const auto refused = [](Bytes file) {
    const Inspection inspection(std::move(file));
    const auto facts = describe_qcow2(inspection.file);
    REQUIRE_FALSE(facts);
    return facts.error().kind;
  };
  CHECK(refused(Bytes(4096)) == ErrorKind::kMalformed);
  Qcow2Builder builder({});
  builder.file.resize(80);
  CHECK(refused(builder.file) == ErrorKind::kTruncated);
  Qcow2Builder old({});
  old.set32(4, 1);
  CHECK(refused(old.file) == ErrorKind::kUnsupported);
}

}  // namespace underlay
