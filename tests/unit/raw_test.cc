#include "formats/raw/raw.h"

#include <doctest/doctest.h>

#include "io/memory_source.h"

namespace underlay {
namespace {

Result<std::unique_ptr<Reader>> open(std::shared_ptr<const Source> source) {
  static Caches caches;
  const ImageOptions options;
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

}  // namespace
}  // namespace underlay
