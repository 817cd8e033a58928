#include "formats/raw.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include "io/file_source.h"
#include "io/memory_source.h"
#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

Result<std::unique_ptr<Reader>> open(std::shared_ptr<const Source> source,
                                     const ImageOptions& options = {}) {
  static Caches caches;
  const Confinement nothing;
  std::vector<std::string> warnings;
  return open_raw({.source = std::move(source),
                   .path = "disk.raw",
                   .files = nothing,
                   .caches = caches,
                   .options = options,
                   .warnings = warnings});
}

TEST_CASE("a raw image is its file, byte for byte") {
  const auto source = std::make_shared<MemorySource>(std::vector<std::byte>(1000));
  const auto reader = *open(source);
  CHECK(reader->size() == 1000);
  for (const MapFor purpose : {MapFor::kReadNow, MapFor::kRead, MapFor::kStatus}) {
    const Extent extent = *reader->map(100, 900, purpose);
    CHECK(extent.kind == Extent::Kind::kData);
    CHECK(extent.length == 900);
    CHECK(extent.source == source.get());
    CHECK(extent.source_offset == 100);
  }
  CHECK(!reader->parent());
  CHECK(reader->identity().empty());
  CHECK(reader->sources() == std::vector<const Source*>{source.get()});
}

TEST_CASE("only block status looks for holes of the file system") {
  const TempFolder folder;
  const std::string path = folder.write("disk.raw", "data");
  REQUIRE(::truncate(path.c_str(), 4 << 20) == 0);
  const auto reader = *open(*open_file_source(path));
  CHECK(reader->map(2 << 20, 4096, MapFor::kRead)->kind == Extent::Kind::kData);
  const Extent status = *reader->map(2 << 20, 4096, MapFor::kStatus);
  CHECK(status.kind == Extent::Kind::kZero);
  CHECK(status.length == 4096);
  CHECK(reader->map(0, 4, MapFor::kStatus)->kind == Extent::Kind::kData);
}

TEST_CASE("a raw image has no internal snapshots") {
  ImageOptions options;
  options.snapshot = "first";
  const auto opened = open(std::make_shared<MemorySource>(std::vector<std::byte>(512)), options);
  REQUIRE(!opened);
  CHECK(opened.error().kind == ErrorKind::kUsage);
}

TEST_CASE("nothing speaks for raw") { CHECK(probe_raw({}).verdict == ProbeVerdict::kNo); }

}  // namespace
}  // namespace underlay
