// The dump of qcow images of version 1.
#include <doctest/doctest.h>

#include "tests/support/dumped.h"
#include "tests/support/qcow_builder.h"

namespace underlay::qcow::test {
namespace {

using underlay::test::dump_as;
using underlay::test::Dumped;

}  // namespace

TEST_CASE("qcow dump: the header's fields, every entry of the tables") {
  QcowBuilder builder = sample();
  Dumped dumped;
  REQUIRE(dump_as("qcow", builder.file, dumped));
  CHECK(dumped.structures ==
        std::vector<std::string>{"header", "L1 table", "L2 table 0", "L2 table 1", "L2 table 2"});
  CHECK(dumped.find("header", "cluster_bits").offset == 32);
  CHECK(dumped.find("header", "crypt_method").meaning == "none");
  const uint64_t l2 = builder.get64(builder.l1_entry_offset(0));
  CHECK(dumped.find("L1 table", "[0]").meaning == fmt::format("L2 table at {}", l2));
  CHECK(dumped.find("L2 table 0", "[0]").offset == l2);
  CHECK(dumped.find("L2 table 0", "[0]").meaning ==
        fmt::format("cluster at {}", builder.get64(l2)));
  CHECK(dumped.find("L2 table 0", "[1]").meaning.starts_with("compressed, "));
  CHECK(dumped.find("L2 table 0", "[2]").meaning.empty());
  CHECK(dumped.fields.back().name == "[63]");
}

TEST_CASE("qcow dump: the backing file's name; an encrypted image; what is damaged") {
  const QcowBuilder backed({.backing_name = "base.img"});
  Dumped dumped;
  REQUIRE(dump_as("qcow", backed.file, dumped));
  CHECK(dumped.find("backing file name", "backing_file_name").value == "base.img");
  QcowBuilder encrypted = sample();
  encrypted.set32(36, 1);
  Dumped aes;
  REQUIRE(dump_as("qcow", encrypted.file, aes));
  CHECK(aes.find("header", "crypt_method").meaning == "AES");
  CHECK(aes.structures.size() == 5);
  QcowBuilder damaged = sample();
  damaged.set8(32, 77);
  Dumped header;
  REQUIRE(dump_as("qcow", damaged.file, header));
  CHECK(header.structures.size() == 1);
  QcowBuilder cut = sample();
  cut.file.resize(cut.get64(cut.l1_entry_offset(0)) + 20);
  Dumped part;
  REQUIRE(dump_as("qcow", cut.file, part));
  CHECK(part.fields.back().name == "[1]");
}

}  // namespace underlay::qcow::test
