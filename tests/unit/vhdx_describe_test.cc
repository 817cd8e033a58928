#include <doctest/doctest.h>

#include <functional>

#include "tests/support/inspected.h"
#include "tests/support/vhdx_opened.h"

namespace underlay::vhdx::test {
namespace {

using underlay::test::describe_as;
using underlay::test::notices;
using underlay::test::refusals;

constexpr std::string_view kSomeGuid = "01234567-89ab-cdef-0123-456789abcdef";
constexpr size_t kEntriesAt = VhdxBuilder::kMetadataAt + 32;  // of the metadata table

Result<ImageFacts> describe(const Bytes& image) { return describe_as("vhdx", image); }

// Why an image that was changed is not served; it must not be.
std::string refused(const std::function<void(Bytes&)>& change,
                    const VhdxBuilder& builder = dynamic()) {
  Bytes image = builder.build();
  change(image);
  CHECK_FALSE(open(image, parent_files()));
  return refusals(describe(image));
}
template <class T>
std::string with_bytes(size_t at, T value) {
  return refused([&](Bytes& image) { store_le<T>(image, at, value); });
}
template <class T>
std::string with_headers(size_t at, T value) {
  return refused([&](Bytes& image) { set_in_headers<T>(image, at, value); });
}
template <class T>
std::string with_regions(size_t at, T value) {
  return refused([&](Bytes& image) { set_in_region_tables<T>(image, at, value); });
}

TEST_CASE("vhdx describe: headers, regions and items of a dynamic image") {
  Bytes image = dynamic().build();
  const Bytes creator = utf16le("underlay 1");
  std::copy(creator.begin(), creator.end(), image.begin() + 8);
  const auto facts = describe(image).value();
  CHECK(facts.virtual_size == 4 << 20);
  CHECK(facts.cluster_size == kBlock);
  CHECK_FALSE(facts.dirty);
  CHECK(facts.creator == "underlay 1");
  CHECK(facts.identity == open(image).reader().identity());
  CHECK(facts.names.empty());
  CHECK(facts.findings.empty());
  const auto& specific = facts.specific;
  CHECK(specific["subformat"] == "dynamic");
  CHECK(specific["sequence-numbers"] == std::array{1, 2});
  CHECK(specific["data-write-guid"] == "11111111-2222-3333-4444-555555555555");
  CHECK(specific["log"]["state"] == "clean");
  CHECK(specific["log"]["offset"] == VhdxBuilder::kLogAt);
  CHECK(specific["regions"]["bat"]["offset"] == VhdxBuilder::kBatAt);
  CHECK(specific["block-size"] == kBlock);
  CHECK(specific["logical-sector-size"] == 512);
  CHECK(specific["physical-sector-size"] == 512);
  CHECK(specific["has-parent"] == false);
  CHECK(specific["leave-blocks-allocated"] == false);
  CHECK(specific["virtual-disk-id"] == "00000000-0000-0000-0000-000000000000");
}

TEST_CASE("vhdx describe: a fixed image, and every name of a differencing one") {
  VhdxBuilder fixed = dynamic();
  fixed.flags = 1;
  CHECK(describe(fixed.build())->specific["subformat"] == "fixed");
  VhdxBuilder child = differencing();
  child.locator.push_back({"absolute_win32_path", "C:\\vm\\parent.vhdx"});
  child.locator.push_back({"other", "thing"});
  const auto facts = describe(child.build()).value();
  CHECK(facts.specific["subformat"] == "differencing");
  CHECK(facts.specific["parent-locator"]["values"]["other"] == "thing");
  CHECK(facts.specific["parent-locator"]["values"]["parent_linkage"] ==
        "{11111111-2222-3333-4444-555555555555}");
  REQUIRE(facts.names.size() == 2);
  CHECK(facts.names[0].role == "parent (relative_path)");
  CHECK(facts.names[0].name == ".\\parent.vhdx");
  CHECK(facts.names[1].role == "parent (absolute_win32_path)");
  CHECK(facts.names[1].name == "C:\\vm\\parent.vhdx");
  CHECK(facts.names[1].otherwise == std::vector<std::string>{"parent.vhdx"});
  CHECK(facts.backing_filename == "parent.vhdx");
  CHECK(facts.backing_filename_format == "vhdx");
  CHECK(facts.findings.empty());
}

TEST_CASE("vhdx describe: a log that must be replayed is, before anything else is told") {
  VhdxBuilder builder = dynamic();
  builder.log_guid = guid(kSomeGuid);
  Bytes metadata(4096);
  const Bytes whole = builder.build();
  std::copy_n(whole.begin() + VhdxBuilder::kItemsAt, metadata.size(), metadata.begin());
  store_le<uint64_t>(metadata, 8, 2 << 20);  // VirtualDiskSize, behind the File Parameters
  const LogEntry entry{.writes = {{.offset = VhdxBuilder::kItemsAt, .bytes = metadata}}};
  builder.log = entry.build(*builder.log_guid);
  const auto facts = describe(builder.build());
  CHECK(refusals(facts).empty());
  CHECK(notices(facts) == "log-pending");
  CHECK(facts->dirty);
  CHECK(facts->virtual_size == 2 << 20);
  CHECK(facts->specific["log"]["state"] == "must be replayed");

  builder.log[100] ^= std::byte{1};
  const auto useless = describe(builder.build());
  CHECK(refusals(useless) == "log-unreplayable");
  CHECK(useless->dirty);
  CHECK(useless->virtual_size == 4 << 20);
  CHECK(useless->specific["log"]["state"] == "cannot be replayed");
}

TEST_CASE("vhdx describe: copies that stand in are noticed") {
  for (const uint64_t at : kHeadersAt) {
    Bytes image = dynamic().build();
    image[at + 100] ^= std::byte{1};
    CHECK(notices(describe(image)) == "header-damaged");
    CHECK(refusals(describe(image)).empty());
  }
  for (const uint64_t at : kRegionTablesAt) {
    Bytes image = dynamic().build();
    image[at + 100] ^= std::byte{1};
    CHECK(notices(describe(image)) == "region-table-damaged");
    CHECK(refusals(describe(image)).empty());
  }
  VhdxBuilder child = differencing();
  child.locator.push_back({"volume_path", ""});
  CHECK(notices(describe(child.build())) == "parent-path-unusable");
}

TEST_CASE("vhdx describe: the headers' rules, each by its code") {
  CHECK(refused([](Bytes& image) {
          for (const uint64_t at : kHeadersAt) image[at + 100] ^= std::byte{1};
        }) == "headers-damaged");
  CHECK(refused([](Bytes& image) {
          set_in_headers<uint64_t>(image, 8, 5);
          image[kHeadersAt[1] + 4000] = std::byte{1};
          seal(image, kHeadersAt[1], kHeaderBytes);
        }) == "headers-contradict");
  CHECK(with_headers<uint16_t>(66, 2) == "version-unsupported");
  CHECK(with_headers<uint64_t>(72, 4096) == "log-misplaced");
  CHECK(refused([](Bytes& image) {
          set_in_headers<uint16_t>(image, 64, 1);
          set_in_headers<uint8_t>(image, 48, 1);
        }) == "log-version-unsupported");
}

TEST_CASE("vhdx describe: the region table's rules, each by its code") {
  VhdxBuilder unknown = dynamic();
  unknown.more_regions = {{std::string(kSomeGuid), 1 << 30, 1 << 20, 1}};
  CHECK(refused([](Bytes&) {}, unknown) == "region-unknown");
  unknown.more_regions[0] = {"2DC27766-F623-4200-9D64-115E9BFD4A08", 3 << 20, 1 << 20, 1};
  CHECK(refused([](Bytes&) {}, unknown) == "region-twice");
  CHECK(with_regions<uint64_t>(32, 1 << 20) == "regions-overlap");
  CHECK(with_regions<uint64_t>(32, uint64_t{1} << 40) == "structure-beyond-end");
  CHECK(with_regions<uint64_t>(32, 4096) == "region-misplaced region-missing");
  CHECK(refused([](Bytes& image) {
          store_le<uint64_t>(image, kRegionTablesAt[1] + 32, 5 << 20);
          seal(image, kRegionTablesAt[1], kRegionTableBytes);
        }) == "region-tables-differ");
}

TEST_CASE("vhdx describe: the metadata's rules, each by its code") {
  VhdxBuilder builder = dynamic();
  builder.more_items = {{std::string(kSomeGuid), Bytes(8), 4}};
  CHECK(refused([](Bytes&) {}, builder) == "item-unknown");
  builder.more_items = {{"CAA16737-FA36-4D43-B3B6-33F0AA44E76B", Bytes(8), 4}};
  CHECK(refused([](Bytes&) {}, builder) == "item-twice");
  CHECK(with_bytes<uint32_t>(kEntriesAt + 20, 7) == "item-too-short item-missing");
  CHECK(with_bytes<uint32_t>(kEntriesAt + 20, (1 << 20) + 1) == "item-too-long item-missing");
  CHECK(with_bytes<uint32_t>(kEntriesAt + 16, 4096) == "item-misplaced item-missing");
  CHECK(with_bytes<uint32_t>(kEntriesAt + 16, (64 << 10) + 8) == "items-overlap");
  CHECK(with_bytes<uint32_t>(VhdxBuilder::kItemsAt, 3 << 20) == "block-size-wrong");
  CHECK(with_bytes<uint32_t>(VhdxBuilder::kItemsAt + 4, 4) == "flags-unknown");
  CHECK(with_bytes<uint64_t>(VhdxBuilder::kItemsAt + 8, 513) == "size-wrong");
  CHECK(with_bytes<uint32_t>(VhdxBuilder::kItemsAt + 16, 513) == "sector-size-wrong");
  CHECK(with_bytes<uint64_t>(VhdxBuilder::kItemsAt + 8, uint64_t{1} << 42) == "bat-too-small");
  CHECK(with_bytes<uint32_t>(VhdxBuilder::kItemsAt + 4, 2) == "parent-locator-missing");
  VhdxBuilder child = differencing();
  child.locator = {{"relative_path", "parent.vhdx"}};
  CHECK(refused([](Bytes&) {}, child) == "parent-locator-wrong");
  CHECK(describe(child.build())->names.size() == 1);
}

TEST_CASE("vhdx describe: without a size there is nothing to tell but why") {
  const auto why = [](const std::function<void(Bytes&)>& change, ErrorKind kind) {
    Bytes image = dynamic().build();
    change(image);
    const auto facts = describe(image);
    REQUIRE_FALSE(facts);
    CHECK(facts.error().kind == kind);
    return facts.error().message;
  };
  const auto damaged = [&](const std::function<void(Bytes&)>& change) {
    return why(change, ErrorKind::kMalformed);
  };
  CHECK(damaged([](Bytes& image) { image[0] = std::byte{'V'}; }).starts_with("is no VHDX"));
  CHECK(damaged([](Bytes& image) { image[VhdxBuilder::kMetadataAt] = std::byte{'M'}; }) ==
        "the metadata table has the signature \"Metadata\" where \"metadata\" must be");
  CHECK(damaged([](Bytes& image) {
          store_le<uint16_t>(image, VhdxBuilder::kMetadataAt + 10, 2048);
        }) == "the metadata table has EntryCount 2048, more than 2047");
  CHECK(damaged([](Bytes& image) {
          for (const uint64_t at : kRegionTablesAt) image[at] = std::byte{'R'};
        }).starts_with("the region table at byte 196608 has the signature"));
  CHECK(damaged([](Bytes& image) { set_in_region_tables<uint32_t>(image, 8, 2048); }) ==
        "the region table has EntryCount 2048, more than 2047");
  CHECK(why([](Bytes& image) { image.resize((1 << 20) - 1); }, ErrorKind::kTruncated)
            .find("it is truncated") != std::string::npos);
}

TEST_CASE("vhdx describe: a failure to read is no finding") {
  for (int64_t read = 0; read < 12; ++read) {
    auto source = std::make_shared<FaultySource>(std::make_shared<MemorySource>(dynamic().build()));
    source->fail_read(read);
    const auto facts = describe_as("vhdx", source);
    INFO("read ", read);
    REQUIRE_FALSE(facts);
    CHECK(facts.error().kind == ErrorKind::kIo);
  }
}

}  // namespace
}  // namespace underlay::vhdx::test
