// VHDXs opened from memory: what the tests of the reader share.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "formats/open_chain.h"
#include "io/faulty_source.h"
#include "io/memory_source.h"
#include "tests/support/opened_disk.h"
#include "tests/support/vhdx_builder.h"

namespace underlay::vhdx::test {

using underlay::test::MemoryFiles;
using underlay::test::Opened;
using underlay::test::read;
using underlay::test::read_all;

inline Opened open(std::shared_ptr<const Source> source, const NamedFiles& files = MemoryFiles()) {
  OpenOptions options;
  options.format = "vhdx";
  return underlay::test::open_as(options, std::move(source), files);
}
inline Opened open(const Bytes& image, const NamedFiles& files = MemoryFiles()) {
  return open(std::make_shared<MemorySource>(image), files);
}

constexpr uint32_t kBlock = 1 << 20;

// A disk of four blocks; 1 and 3 hold data.
inline VhdxBuilder dynamic() {
  VhdxBuilder builder;
  builder.blocks[1] = {.data = pattern(kBlock, 1)};
  builder.blocks[3] = {.data = pattern(kBlock, 3)};
  return builder;
}
// The stored blocks, and zeros.
inline Bytes content_of(const VhdxBuilder& builder) {
  Bytes content(static_cast<size_t>(builder.size));
  for (const auto& [number, block] : builder.blocks) {
    const size_t at = static_cast<size_t>(number) * builder.block_size;
    std::copy(block.data.begin(), block.data.end(),
              content.begin() + static_cast<std::ptrdiff_t>(at));
  }
  return content;
}

// A child of dynamic(), "parent.vhdx" in parent_files().
inline VhdxBuilder differencing() {
  VhdxBuilder builder;
  builder.data_write_guid = "99999999-2222-3333-4444-555555555555";
  builder.locator = {{"parent_linkage", "{11111111-2222-3333-4444-555555555555}"},
                     {"relative_path", ".\\parent.vhdx"}};
  return builder;
}
inline MemoryFiles parent_files() {
  MemoryFiles files;
  files.add("parent.vhdx", dynamic().build());
  return files;
}

}  // namespace underlay::vhdx::test
