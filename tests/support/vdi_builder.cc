#include "tests/support/vdi_builder.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "io/store_le.h"

namespace underlay::vdi::test {
namespace {

constexpr std::string_view kText = "<<< Oracle VM VirtualBox Disk Image >>>\n";

void fill_uuid(Bytes& image, size_t at, std::byte byte) {
  std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(at), 16, byte);
}

}  // namespace

Bytes VdiBuilder::build() const {
  const auto needed = static_cast<uint32_t>(div_round_up(disk_size, block_size));
  const uint32_t blocks = blocks_in_image.value_or(needed);
  const auto data_at = std::max<uint64_t>(kDataAt, *round_up(kMapAt + uint64_t{blocks} * 4, 512));
  Bytes image(data_at + stored.size() * (block_extra + block_size));
  std::memcpy(image.data(), kText.data(), kText.size());
  store_le<uint32_t>(image, 64, 0xbeda107f);
  store_le<uint32_t>(image, 68, 0x00010001);
  store_le<uint32_t>(image, 72, 384);
  store_le<uint32_t>(image, 76, image_type);
  store_le<uint32_t>(image, 340, kMapAt);
  store_le<uint32_t>(image, 344, static_cast<uint32_t>(data_at));
  store_le<uint32_t>(image, 360, 512);
  store_le<uint64_t>(image, 368, disk_size);
  store_le<uint32_t>(image, 376, block_size);
  store_le<uint32_t>(image, 380, block_extra);
  store_le<uint32_t>(image, 384, blocks);
  store_le<uint32_t>(image, 388, blocks_allocated.value_or(static_cast<uint32_t>(stored.size())));
  fill_uuid(image, 392, id);
  fill_uuid(image, 408, revision);
  fill_uuid(image, 424, parent_id);
  fill_uuid(image, 440, parent_revision);
  for (uint32_t block = 0; block < blocks; ++block) {
    const auto entry = entries.find(block);
    store_le<uint32_t>(image, kMapAt + block * 4,
                       entry == entries.end() ? 0xffffffff : entry->second);
  }
  auto at = image.begin() + static_cast<std::ptrdiff_t>(data_at);
  for (const Bytes& block : stored) {
    at = std::fill_n(at, block_extra, std::byte{0xdd});
    at = std::copy(block.begin(), block.end(), at);
  }
  return image;
}

}  // namespace underlay::vdi::test
