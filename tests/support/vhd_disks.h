// VHDs of known contents, opened from memory: what the tests of the reader share.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "formats/open_chain.h"
#include "io/confined_open.h"
#include "io/faulty_source.h"
#include "io/memory_source.h"
#include "tests/support/opened_disk.h"
#include "tests/support/vhd_builder.h"

namespace underlay::vhd::test {

using underlay::test::MemoryFiles;
using underlay::test::Opened;
using underlay::test::read;
using underlay::test::read_all;

// Opens an image as "vpc".
Opened open(std::shared_ptr<const Source> source, const NamedFiles& files = MemoryFiles(),
            ImageOptions::VhdSize size = ImageOptions::VhdSize::kByCreator);
Opened open(const Bytes& image, const NamedFiles& files = MemoryFiles(),
            ImageOptions::VhdSize size = ImageOptions::VhdSize::kByCreator);

constexpr uint32_t kBlock = 4096;
constexpr uint64_t kSize = 5 * kBlock + kBlock / 2;

// A disk of five and a half blocks; 1, 3 and 5 hold data.
VhdBuilder dynamic();
Bytes content_of(const VhdBuilder& dynamic);

// A child of dynamic(), "parent.vhd" in parent_files(): block 0 has no bit set, block 1 some, block
// 2 all; the others are absent.
VhdBuilder differencing();
Bytes differencing_content();
MemoryFiles parent_files();

// The same child by tapdisk, with a batmap that says that block 0 is full (its bitmap: empty).
VhdBuilder with_batmap();

}  // namespace underlay::vhd::test
