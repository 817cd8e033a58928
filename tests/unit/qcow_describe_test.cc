// What a qcow image of version 1 says of itself, also when it is damaged.
#include "formats/qcow/qcow_describe.h"

#include "tests/support/inspected.h"
#include "tests/support/qcow_builder.h"

namespace underlay::qcow::test {
namespace {

using Kind = Finding::Kind;
using underlay::test::codes_of;
using underlay::test::finding_in;
using underlay::test::Inspection;

ImageFacts facts_of(const Bytes& file) {
  const Inspection inspection(file);
  auto facts = describe_qcow(inspection.file);
  REQUIRE_MESSAGE(facts, facts.error().to_string());
  return *std::move(facts);
}

void check_only(const Bytes& file, std::string_view code, std::string_view words) {
  const ImageFacts facts = facts_of(file);
  CHECK(codes_of(facts.findings) == std::vector<std::string>{std::string(code)});
  const Finding found = finding_in(facts.findings, code);
  CAPTURE(found.message);
  CHECK(found.kind == Kind::kCorruption);
  CHECK(found.message.find(words) != std::string::npos);
}

}  // namespace

TEST_CASE("qcow describe: a whole image") {
  const ImageFacts facts = facts_of(QcowBuilder({.cluster_bits = 12, .size = 98304}).file);
  CHECK(facts.findings.empty());
  CHECK(facts.virtual_size == 98304);
  CHECK(facts.cluster_size == 4096);
  CHECK_FALSE(facts.encrypted);
  CHECK(facts.names.empty());
}

TEST_CASE("qcow describe: the backing file, whose format cannot be stated") {
  const ImageFacts facts = facts_of(QcowBuilder({.backing_name = "base.img"}).file);
  CHECK(facts.backing_filename == "base.img");
  REQUIRE(facts.names.size() == 1);
  CHECK(facts.names[0].role == "backing file");
  CHECK(codes_of(facts.findings) == std::vector<std::string>{"backing-format-unstated"});
  CHECK(facts.findings[0].kind == Kind::kNotice);

  const ImageFacts protocol = facts_of(QcowBuilder({.backing_name = "nbd://x/"}).file);
  CHECK(finding_in(protocol.findings, "backing-file-protocol").kind == Kind::kCorruption);
  QcowBuilder outside({.backing_name = "base.img"});
  outside.set64(8, 1 << 30);
  check_only(outside.file, "backing-file-name", "beyond the end");
}

TEST_CASE("qcow describe: header rules that are broken") {
  struct Case {
    uint64_t at;
    uint32_t value;
    std::string_view code;
  };
  const Case cases[] = {{32, 0x3f060000, "geometry"},
                        {44, 3, "l1-table"},
                        {44, 1 << 30, "l1-beyond-end"},
                        {36, 1, "encryption"}};
  for (const Case& wrong : cases) {
    CAPTURE(wrong.code);
    QcowBuilder builder({});
    builder.set32(wrong.at, wrong.value);
    check_only(builder.file, wrong.code, "");
  }
  QcowBuilder encrypted({});
  encrypted.set32(36, 1);
  CHECK(facts_of(encrypted.file).encrypted);
}

TEST_CASE("qcow describe: what is no qcow of version 1 fails") {
  QcowBuilder builder({});
  builder.set32(4, 2);
  const Inspection other(builder.file);
  CHECK_FALSE(describe_qcow(other.file));
  const Inspection nothing(Bytes(512));
  CHECK_FALSE(describe_qcow(nothing.file));
}

}  // namespace underlay::qcow::test
