// The structures of VMDK files, field by field.
#include "formats/vmdk/vmdk_dump.h"

#include <doctest/doctest.h>

#include <span>

#include "formats/vmdk/vmdk_layout.h"
#include "io/store_le.h"
#include "tests/support/dumped.h"
#include "tests/support/vmdk_esx_builder.h"
#include "tests/support/vmdk_opened.h"

namespace underlay::vmdk_test {
namespace {

using underlay::test::dump_as;
using underlay::test::Dumped;
using Names = std::vector<std::string>;

Dumped dumped_of(const Bytes& file) {
  Dumped dumped;
  const auto done = dump_as("vmdk", file, dumped);
  CHECK_MESSAGE(done, done.error().to_string());
  return dumped;
}
Bytes bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return Bytes(bytes.begin(), bytes.end());
}

Bytes content() { return vmdk_content(4 << 20, 1, 9000); }

BuiltVmdk image(VmdkSpec spec = {}) { return monolithic(content(), spec); }

TEST_CASE("vmdk dump: a sparse file with both directories") {
  const BuiltVmdk built = image({.redundant = true});
  const Dumped dumped = dumped_of(built.bytes);
  CHECK(dumped.structures == Names{"header", "descriptor", "redundant grain directory",
                                   "redundant grain table 0", "grain directory", "grain table 0"});
  CHECK(dumped.find("header", "magicNumber").value == "KDMV");
  CHECK(dumped.find("header", "capacity").value == 8192);
  CHECK(dumped.find("header", "capacity").meaning == "4194304 bytes");
  CHECK(dumped.find("header", "grainSize").value == 8);
  CHECK(dumped.find("header", "flags").meaning == "line ends tell damage, redundant directory");
  CHECK(dumped.find("header", "gdOffset").meaning == fmt::format("byte {}", built.directory));
  CHECK(dumped.find("descriptor", "line 1").value == "# Disk DescriptorFile");
  CHECK(dumped.find("grain directory", "[0]").value == built.tables[0] / 512);
  CHECK(dumped.find("grain directory", "[1]").meaning == "absent");
  CHECK(dumped.find("grain table 0", "[2]").value == built.entry(2));
  CHECK(dumped.find("grain table 0", "[511]").value == 0);
  CHECK(dumped.offset_of("grain table 0") == built.tables[0]);
  CHECK(dumped.offset_of("redundant grain table 0") == built.redundant_tables[0]);
}

TEST_CASE("vmdk dump: the markers of a stream, and its footer, also before zeros") {
  BuiltVmdk built = image({.compressed = true, .footer = true});
  const uint64_t end = built.bytes.size();
  for (const uint64_t padding : {0u, 512u, 5120u}) {
    built.bytes.resize(end + padding);
    const Dumped dumped = dumped_of(built.bytes);
    CHECK(dumped.structures == Names{"header", "descriptor", "metadata marker", "grain directory",
                                     "metadata marker", "grain table 0", "grain marker 0",
                                     "grain marker 1", "grain marker 2", "footer marker", "footer",
                                     "end-of-stream marker"});
    CHECK(dumped.find("header", "gdOffset").meaning == "in the footer");
    CHECK(dumped.find("footer", "gdOffset").value == built.directory / 512);
    CHECK(dumped.find("footer marker", "type").meaning == "footer");
    CHECK(dumped.find("end-of-stream marker", "type").meaning == "end of stream");
    CHECK(dumped.find("grain marker 2", "lba").value == 16);
    CHECK(dumped.offset_of("end-of-stream marker") == end - 512);
    CHECK(dumped.offset_of("grain marker 1") == uint64_t{built.entry(1)} * 512);
  }
}

TEST_CASE("vmdk dump: zeroed and damaged entries say what they are") {
  BuiltVmdk built = image({.zeroed = true});
  CHECK(dumped_of(built.bytes).find("grain table 0", "[3]").meaning == "zeros");
  store_le<uint32_t>(built.bytes, built.directory + 4, 1u << 30);
  const Dumped dumped = dumped_of(built.bytes);
  CHECK(dumped.find("grain directory", "[1]").meaning.find("beyond the end") != std::string::npos);
}

TEST_CASE("vmdk dump: a damaged image as far as that goes") {
  BuiltVmdk built = image({.compressed = true, .footer = true});
  built.bytes.resize(built.bytes.size() - 512);
  Dumped dumped = dumped_of(built.bytes);
  CHECK(dumped.structures == Names{"header", "descriptor"});
  built.bytes[4] = std::byte{9};
  store_le<uint64_t>(built.bytes, 28, 1 << 30);
  dumped = dumped_of(built.bytes);
  CHECK(dumped.structures == Names{"header"});
  CHECK(dumped.find("header", "version").value == 9);
  BuiltVmdk lost = image();
  store_le<uint64_t>(lost.bytes, 56, 1 << 30);
  CHECK(dumped_of(lost.bytes).structures == Names{"header", "descriptor"});
}

TEST_CASE("vmdk dump: the lines of a descriptor, as the parser counts them") {
  const Dumped dumped = dumped_of(
      bytes_of("# Disk DescriptorFile\r\n\nRW 8 FLAT \"a\" 0\nlast" + std::string(9, '\0')));
  CHECK(dumped.structures == Names{"descriptor"});
  CHECK(dumped.find("descriptor", "line 1").value == "# Disk DescriptorFile");
  CHECK(dumped.find("descriptor", "line 2").value == "");
  CHECK(dumped.find("descriptor", "line 3").value == "RW 8 FLAT \"a\" 0");
  CHECK(dumped.find("descriptor", "line 4").value == "last");
  CHECK(dumped.fields.size() == 4);
  Dumped none;
  CHECK_FALSE(dump_as("vmdk", bytes_of("no vmdk"), none));
}

TEST_CASE("vmdk dump: extents of ESX") {
  const BuiltEsx cowd = build_cowd(content());
  Dumped dumped = dumped_of(cowd.bytes);
  CHECK(dumped.structures == Names{"header", "grain directory", "grain table 0"});
  CHECK(dumped.find("header", "numSectors").value == 8192);
  CHECK(dumped.find("grain table 0", "[7]").value == cowd.entry(7));

  BuiltEsx sesparse = build_se_sparse(content(), 5);
  dumped = dumped_of(sesparse.bytes);
  CHECK(dumped.structures ==
        Names{"constant header", "volatile header", "grain directory", "grain table 0"});
  CHECK(dumped.find("constant header", "capacity").value == 8192);
  CHECK(dumped.find("volatile header", "replay_journal").value == 0);
  CHECK(dumped.find("grain table 0", "[1]").value == sesparse.entry(1));
  sesparse.set_entry(1, uint64_t{7} << 60);
  CHECK(dumped_of(sesparse.bytes).find("grain table 0", "[1]").meaning == "unknown");
  store_le<uint64_t>(sesparse.bytes, dumped.offset_of("volatile header") + 24, 1);
  dumped = dumped_of(sesparse.bytes);
  CHECK(dumped.structures == Names{"constant header", "volatile header"});
  CHECK(dumped.find("volatile header", "replay_journal").meaning == "to be replayed");
}

TEST_CASE("vmdk dump: fields that nobody wants are not read") {
  Dumped dumped(/*with_fields=*/false);
  CHECK(dump_as("vmdk", image().bytes, dumped));
  CHECK(dumped.structures.size() == 4);
  for (const Dumped::Field& field : dumped.fields) CHECK(field.structure != "grain table 0");
}

}  // namespace
}  // namespace underlay::vmdk_test
