#include <doctest/doctest.h>

#include <functional>

#include "tests/support/inspected.h"
#include "tests/support/vhd_disks.h"

namespace underlay::vhd::test {
namespace {

using underlay::test::describe_as;
using underlay::test::notices;
using underlay::test::refusals;

Result<ImageFacts> describe(const Bytes& image) { return describe_as("vpc", image); }

// Why an image that was changed is not served; it must not be.
std::string refused(const VhdBuilder& builder, const std::function<void(Bytes&)>& change) {
  Bytes image = builder.build();
  change(image);
  CHECK_FALSE(open(image, parent_files()));
  return refusals(describe(image));
}
// What is said of one that is served nevertheless.
std::string noticed(const VhdBuilder& builder, const std::function<void(Bytes&)>& change) {
  Bytes image = builder.build();
  change(image);
  CHECK(open(image, parent_files()));
  const auto facts = describe(image);
  CHECK(refusals(facts).empty());
  return notices(facts);
}

void nothing(Bytes&) {}

// A disk whose geometry amounts to less than current_size.
VhdBuilder two_sizes(std::string_view creator) {
  VhdBuilder builder = dynamic();
  builder.creator = creator;
  builder.cylinders = 40;
  builder.heads = 1;
  builder.sectors_per_track = 1;
  return builder;
}

TEST_CASE("vhd describe: footer and header of a dynamic image") {
  Bytes image = dynamic().build();
  set_in_footers<uint32_t>(image, 24, 86400 * 366);  // a day after the leap year 2000
  set_in_footers<uint32_t>(image, 36, 0x5769326b);   // "Wi2k"
  set_in_footers<uint8_t>(image, 84, 1);
  set_in_footers<uint8_t>(image, 85, 1);
  const auto facts = describe(image).value();
  CHECK(facts.virtual_size == kSize);
  CHECK(facts.cluster_size == kBlock);
  CHECK_FALSE(facts.encrypted);
  CHECK(facts.creator == "Windows 10.0");
  CHECK(facts.identity == open(image).reader().identity());
  CHECK(facts.backing_filename.empty());
  CHECK(facts.names.empty());
  CHECK(facts.findings.empty());
  const auto& specific = facts.specific;
  CHECK(specific["subformat"] == "dynamic");
  CHECK(specific["current-size"] == kSize);
  CHECK(specific["geometry-size"] == kSize);
  CHECK(specific["creator-application"] == "win");
  CHECK(specific["creator-host-os-name"] == "Windows");
  CHECK(specific["time-stamp"] == "2001-01-01T00:00:00Z");
  CHECK(specific["unique-id"] == "11111111-1111-1111-1111-111111111111");
  CHECK(specific["saved-state"] == true);
  CHECK(specific["hidden"] == true);
  CHECK(specific["footer-offset"] == image.size() - 512);
  CHECK(specific["table-offset"] == 1536);
  CHECK(specific["max-table-entries"] == 6);
  CHECK(specific["blocks"] == 6);
}

TEST_CASE("vhd describe: a fixed image has no clusters") {
  VhdBuilder builder;
  builder.disk_type = 2;
  builder.current_size = 4096;
  builder.fixed_data = pattern(4096, 1);
  const auto facts = describe(builder.build()).value();
  CHECK(facts.virtual_size == 4096);
  CHECK_FALSE(facts.cluster_size);
  CHECK(facts.specific["subformat"] == "fixed");
  CHECK(facts.findings.empty());
  builder.fixed_data.resize(2048);
  CHECK(refused(builder, nothing) == "size-beyond-capacity");
}

TEST_CASE("vhd describe: both sizes, and the rule that chose one") {
  const auto size_of = [](const VhdBuilder& builder,
                          ImageOptions::VhdSize asked = ImageOptions::VhdSize::kByCreator) {
    ImageOptions options;
    options.vhd_size = asked;
    const auto facts = describe_as("vpc", builder.build(), options).value();
    CHECK(facts.specific["current-size"] == kSize);
    return std::pair(facts.virtual_size, facts.specific["size-rule"].get<std::string>());
  };
  CHECK(size_of(two_sizes("win ")) ==
        std::pair(kSize, std::string("creator \"win \" means current_size")));
  CHECK(size_of(two_sizes("vbox")) ==
        std::pair(uint64_t{40 * 512}, std::string("creator \"vbox\" means the geometry")));
  CHECK(size_of(two_sizes("win "), ImageOptions::VhdSize::kChs) ==
        std::pair(uint64_t{40 * 512}, std::string("force_size_calc")));
  CHECK(size_of(two_sizes("vbox"), ImageOptions::VhdSize::kCurrentSize) ==
        std::pair(kSize, std::string("force_size_calc")));
  VhdBuilder saturated = dynamic();
  saturated.creator = "vbox";
  saturated.cylinders = 65535;
  saturated.heads = 16;
  saturated.sectors_per_track = 255;
  CHECK(size_of(saturated).first == kSize);
  CHECK(size_of(saturated).second.find("the largest") != std::string::npos);
  CHECK(noticed(two_sizes("vbox"), nothing) == "sizes-differ");
}

TEST_CASE("vhd describe: every name of the parent, as it is written") {
  VhdBuilder builder = differencing();
  builder.parent_unicode_name = utf16be("C:\\vm\\parent.vhd");
  builder.locators = {{"W2ku", utf16le("C:\\vm\\parent.vhd")},
                      {"W2ru", utf16le(".\\parent.vhd")},
                      {"Odd!", utf16le("odd")},
                      {"Mac ", pattern(20, 1)}};
  const auto facts = describe(builder.build()).value();
  CHECK(facts.specific["subformat"] == "differencing");
  CHECK(facts.specific["parent-unique-id"] == "11111111-1111-1111-1111-111111111111");
  CHECK(facts.specific["parent-unicode-name"] == "C:\\vm\\parent.vhd");
  CHECK(facts.specific["parent-locators"].size() == 4);
  CHECK(facts.specific["parent-locators"][2]["used"] == false);
  CHECK(facts.specific["parent-locators"][1]["data-offset"] == 2048 + 512);
  REQUIRE(facts.names.size() == 4);
  CHECK(facts.names[0].role == "parent (W2ku)");
  CHECK(facts.names[0].name == "C:\\vm\\parent.vhd");
  CHECK(facts.names[0].otherwise == std::vector<std::string>{"parent.vhd"});
  CHECK(facts.names[0].followed);
  CHECK(facts.names[1].role == "parent (W2ru)");
  CHECK(facts.names[1].name == ".\\parent.vhd");
  CHECK(facts.names[1].format == "vpc");
  CHECK(facts.names[2].name == "odd");
  CHECK_FALSE(facts.names[2].followed);
  CHECK(facts.names[3].role == "parent (parent_unicode_name)");
  CHECK(facts.backing_filename == "parent.vhd");  // the first one that is tried
  CHECK(facts.backing_filename_format == "vpc");
  CHECK(notices(describe(builder.build())) == "parent-locator-unusable parent-locator-unusable");
}

TEST_CASE("vhd describe: tapdisk's batmap, key and raw parent") {
  VhdBuilder builder = with_batmap();
  const auto facts = describe(builder.build()).value();
  CHECK(facts.creator == "tapdisk 1.3");
  CHECK(facts.specific["batmap"]["length"] == 512);
  CHECK(facts.specific["batmap"]["version"] == "1.2");
  CHECK(facts.specific["batmap"]["used"] == true);
  CHECK_FALSE(facts.encrypted);

  Bytes with_key = builder.build();
  with_key[builder.batmap_header_at() + 29] = std::byte{1};
  CHECK(describe(with_key)->encrypted);
  CHECK(refused(builder, [&](Bytes& image) { image = with_key; }) == "encrypted");
  CHECK(noticed(builder, [&](Bytes& image) {
          image[builder.batmap_header_at() + 600] ^= std::byte{1};
        }) == "batmap-unusable");
  CHECK(noticed(builder, [&](Bytes& image) {
          image[builder.batmap_header_at()] ^= std::byte{1};
        }) == "batmap-missing");

  builder.parent_id = std::byte{0};
  const auto raw_child = describe(builder.build());
  CHECK(raw_child->backing_filename_format == "raw");
  CHECK(notices(raw_child) == "parent-unidentified");
  builder.creator = "win ";
  CHECK(refused(builder, nothing) == "parent-id-missing");
}

TEST_CASE("vhd describe: footers that are damaged, missing, or say different things") {
  const VhdBuilder builder = dynamic();
  const auto at_end = [](Bytes& image, size_t offset) -> std::byte& {
    return image[image.size() - 512 + offset];
  };
  CHECK(noticed(builder, [&](Bytes& image) { at_end(image, 100) ^= std::byte{1}; }) ==
        "footer-damaged");
  CHECK(noticed(builder, [](Bytes& image) { image.resize(image.size() - 512); }) ==
        "footer-missing");
  CHECK(noticed(builder, [](Bytes& image) {
          std::fill(image.end() - 512, image.end(), std::byte{0xc7});
        }) == "footer-overwritten");
  CHECK(noticed(builder, [](Bytes& image) { image[100] ^= std::byte{1}; }) ==
        "footer-copy-damaged");
  CHECK(noticed(builder, [](Bytes& image) { std::fill_n(image.begin(), 512, std::byte{0}); }) ==
        "footer-copy-missing");
  CHECK(noticed(builder, [](Bytes& image) {
          store_be<uint32_t>(image, 32, 7);
          seal_footer(image, 0);
        }) == "footers-differ");
  CHECK(noticed(builder, [](Bytes& image) { image.resize(image.size() + 4096); }) ==
        "footer-before-end");
  CHECK(refused(builder, [&](Bytes& image) {
          image[100] ^= std::byte{1};
          at_end(image, 100) ^= std::byte{1};
        }) == "footers-damaged");
  CHECK(refused(builder, [](Bytes& image) {
          store_be<uint32_t>(image, 60, 4);
          seal_footer(image, 0);
        }) == "footers-contradict");
  CHECK(refused(builder, [&](Bytes& image) {
          at_end(image, 68) = std::byte{0x77};
          seal_footer(image, image.size() - 512);
          image.resize(image.size() - 512);
          Bytes end = builder.build();
          end[end.size() - 512 + 68] = std::byte{0x77};
          seal_footer(end, end.size() - 512);
          image.insert(image.end(), 1024, std::byte{0});
          image.insert(image.end(), end.end() - 512, end.end());
        }) == "footers-of-two-images");
  CHECK(refused(builder, [&](Bytes& image) {
          for (const size_t at : {size_t{0}, image.size() - 512}) {
            std::copy_n(as_bytes("v_poison").begin(), 8,
                        image.begin() + static_cast<std::ptrdiff_t>(at));
          }
        }) == "resizing");
  CHECK(refused(builder, [](Bytes& image) { set_in_footers<uint32_t>(image, 60, 5); }) ==
        "type-unsupported");
}

TEST_CASE("vhd describe: the dynamic disk header's rules, each by its code") {
  const auto with_header = [](size_t offset, auto value) {
    return refused(dynamic(), [&](Bytes& image) { set_in_header(image, offset, value); });
  };
  CHECK(refused(dynamic(), [](Bytes& image) { set_in_footers<uint64_t>(image, 16, 513); }) ==
        "header-misplaced");
  CHECK(with_header(0, uint8_t{'C'}) == "header-cookie-wrong");
  CHECK(refused(dynamic(), [](Bytes& image) {
          image[VhdBuilder::kHeaderAt + 900] = std::byte{1};
        }) == "header-checksum-wrong");
  CHECK(with_header(24, uint32_t{0x00020000}) == "header-version-unsupported");
  CHECK(with_header(16, uint64_t{1537}) == "table-misaligned");
  CHECK(with_header(32, uint32_t{6000}) == "block-size-wrong");
  CHECK(with_header(16, uint64_t{1024}) == "table-in-headers");
  CHECK(with_header(28, uint32_t{1 << 30}) == "table-beyond-end");
  CHECK(with_header(28, uint32_t{5}) == "size-beyond-capacity");
}

TEST_CASE("vhd describe: the names of an image that is damaged are told all the same") {
  Bytes image = differencing().build();
  image[VhdBuilder::kHeaderAt + 900] = std::byte{1};
  const auto facts = describe(image);
  CHECK(refusals(facts) == "header-checksum-wrong");
  REQUIRE(facts->names.size() == 1);
  CHECK(facts->names[0].name == ".\\parent.vhd");
}

TEST_CASE("vhd describe: what is no VHD, or cannot be read, is a failure") {
  CHECK(describe(Bytes(100)).error().kind == ErrorKind::kMalformed);
  CHECK(describe(Bytes(4096)).error().kind == ErrorKind::kMalformed);
  for (const int64_t read : {0, 1, 2}) {
    auto source = std::make_shared<FaultySource>(std::make_shared<MemorySource>(dynamic().build()));
    source->fail_read(read);
    CHECK(describe_as("vpc", source).error().kind == ErrorKind::kIo);
  }
}

}  // namespace
}  // namespace underlay::vhd::test
