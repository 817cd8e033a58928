#include "tests/support/vhd_disks.h"

#include <cstring>

namespace underlay::vhd::test {

Opened open(std::shared_ptr<const Source> source, const NamedFiles& files,
            ImageOptions::VhdSize size) {
  OpenOptions options{.format = "vpc", .backing_format = "", .image = {}};
  options.image.vhd_size = size;
  return underlay::test::open_as(options, std::move(source), files);
}

Opened open(const Bytes& image, const NamedFiles& files, ImageOptions::VhdSize size) {
  return open(std::make_shared<MemorySource>(image), files, size);
}

VhdBuilder dynamic() {
  VhdBuilder builder;
  builder.current_size = kSize;
  for (const uint32_t block : {1u, 3u, 5u}) {
    builder.blocks[block] = {Bytes(1, std::byte{0xff}), pattern(kBlock, block)};
  }
  return builder;
}

Bytes content_of(const VhdBuilder& builder) {
  Bytes content(div_round_up(builder.current_size, builder.block_size) * builder.block_size);
  for (const auto& [number, block] : builder.blocks) {
    std::memcpy(content.data() + size_t{number} * builder.block_size, block.data.data(),
                block.data.size());
  }
  content.resize(builder.current_size);
  return content;
}

VhdBuilder differencing() {
  VhdBuilder builder;
  builder.disk_type = 4;
  builder.current_size = kSize;
  builder.id = std::byte{0x33};
  builder.parent_id = std::byte{0x11};
  builder.locators = {{"W2ru", utf16le(".\\parent.vhd")}};
  builder.blocks[0] = {Bytes(1, std::byte{0x00}), pattern(kBlock, 100)};
  builder.blocks[1] = {Bytes(1, std::byte{0x96}), pattern(kBlock, 101)};  // 1001 0110
  builder.blocks[2] = {Bytes(1, std::byte{0xff}), pattern(kBlock, 102)};
  return builder;
}

Bytes differencing_content() {
  Bytes content = content_of(dynamic());
  const VhdBuilder child = differencing();
  for (const size_t sector : {8u, 11u, 13u, 14u, 16u, 17u, 18u, 19u, 20u, 21u, 22u, 23u}) {
    const Bytes& data = child.blocks.at(static_cast<uint32_t>(sector / 8)).data;
    std::memcpy(content.data() + sector * 512, data.data() + sector % 8 * 512, 512);
  }
  return content;
}

MemoryFiles parent_files() {
  MemoryFiles files;
  files.add("parent.vhd", dynamic().build());
  return files;
}

VhdBuilder with_batmap() {
  VhdBuilder child = differencing();
  child.creator = std::string("tap\0", 4);
  child.creator_version = 0x00010003;
  child.batmap = Bytes(512);
  (*child.batmap)[0] = std::byte{0x80};
  return child;
}

}  // namespace underlay::vhd::test
