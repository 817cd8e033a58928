#include "tools/thin/thin_delta.h"

#include <doctest/doctest.h>

#include <string>

namespace underlay::thin {
namespace {

// As thin_delta 0.9 prints it.
constexpr std::string_view kDelta =
    R"(<superblock uuid="" time="2" transaction="5" data_block_size="128" nr_data_blocks="16384">
  <diff left="0" right="1">
    <same begin="0" length="32"/>
    <different begin="32" length="1"/>
    <right_only begin="33" length="2"/>
    <same begin="35" length="5"/>
    <left_only begin="40" length="3"/>
  </diff>
</superblock>
)";

Result<std::vector<MappedRun>> read(std::string_view text, size_t piece = SIZE_MAX) {
  ThinDeltaReader reader;
  while (!text.empty()) {
    TRY(reader.add(text.substr(0, piece)));
    text.remove_prefix(std::min(piece, text.size()));
  }
  return reader.finish();
}

bool is_changed(const std::vector<MappedRun>& runs) {
  return runs.size() == 2 && runs[0].first_block == 32 && runs[0].blocks == 3 &&
         runs[1].first_block == 40 && runs[1].blocks == 3;
}

TEST_CASE("thin_delta: what is not the same, in whatever pieces it comes") {
  for (const size_t piece : {size_t{1}, size_t{7}, SIZE_MAX}) {
    const auto runs = read(kDelta, piece);
    REQUIRE(runs);
    CHECK(is_changed(*runs));
  }
  const auto none = read(R"(<superblock><diff left="0" right="1"></diff></superblock>)");
  REQUIRE(none);
  CHECK(none->empty());
}

TEST_CASE("thin_delta: nothing is taken for no difference by mistake") {
  for (const std::string& text :
       {std::string(""), std::string("no XML"), std::string("<superblock></superblock>"),
        std::string(kDelta.substr(0, kDelta.size() / 2)),
        std::string("<superblock><diff><other begin=\"0\" length=\"1\"/></diff></superblock>"),
        std::string("<superblock><diff><different begin=\"0\"/></diff></superblock>"),
        std::string("<superblock><diff><different begin=\"0\" length=\"0\"/></diff></superblock>"),
        std::string("<superblock><diff><different begin=\"5\" length=\"1\"/>"
                    "<different begin=\"4\" length=\"1\"/></diff></superblock>"),
        std::string("<superblock><diff><different begin=\"-1\" length=\"1\"/></diff>"
                    "</superblock>")}) {
    CAPTURE(text);
    CHECK_FALSE(read(text));
  }
}

}  // namespace
}  // namespace underlay::thin
