#include "tests/support/vdi_disks.h"

#include <cstring>

namespace underlay::vdi::test {

Opened open(std::shared_ptr<const Source> source) {
  OpenOptions options;
  options.format = "vdi";
  return underlay::test::open_as(options, std::move(source), underlay::test::MemoryFiles());
}

Opened open(const Bytes& image) { return open(std::make_shared<MemorySource>(image)); }

VdiBuilder dynamic() {
  VdiBuilder builder;
  builder.disk_size = kSize;
  builder.entries = {{1, 2}, {2, 0xfffffffe}, {3, 0}, {5, 1}};
  for (uint32_t seed = 0; seed < 3; ++seed) builder.stored.push_back(pattern(kBlock, seed));
  return builder;
}

VdiBuilder differencing() {
  VdiBuilder builder;
  builder.image_type = 4;
  builder.disk_size = kSize;
  builder.id = std::byte{0x33};
  builder.parent_id = std::byte{0x11};
  builder.parent_revision = std::byte{0x12};
  builder.entries = {{1, 0}, {3, 0xfffffffe}};
  builder.stored = {pattern(kBlock, 9)};
  return builder;
}

Bytes content_of(const VdiBuilder& builder, const Bytes& below) {
  Bytes content = below;
  const size_t block_size = builder.block_size;
  content.resize(div_round_up(builder.disk_size, block_size) * block_size);
  for (const auto& [block, entry] : builder.entries) {
    std::byte* const at = content.data() + block * block_size;
    if (entry < builder.stored.size()) std::memcpy(at, builder.stored[entry].data(), block_size);
    if (entry == 0xfffffffe) std::memset(at, 0, block_size);
  }
  content.resize(builder.disk_size);
  return content;
}

}  // namespace underlay::vdi::test
