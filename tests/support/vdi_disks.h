// VDIs of known contents, opened from memory: what the tests of the reader share.
#pragma once

#include <memory>
#include <string>

#include "formats/open_chain.h"
#include "io/faulty_source.h"
#include "io/memory_source.h"
#include "tests/support/opened_disk.h"
#include "tests/support/vdi_builder.h"

namespace underlay::vdi::test {

using underlay::test::Opened;
using underlay::test::read;
using underlay::test::read_all;

// Opens an image as "vdi".
Opened open(std::shared_ptr<const Source> source);
Opened open(const Bytes& image);

constexpr uint32_t kBlock = 4096;
constexpr uint64_t kSize = 5 * kBlock + kBlock / 2;

// A disk of five and a half blocks: 1, 3 and 5 are stored in another order, 2 is discarded.
VdiBuilder dynamic();
// A child of it, with another block 1, and its block 3 discarded.
VdiBuilder differencing();

// What `builder` shows, over what its parent shows ("": no parent).
Bytes content_of(const VdiBuilder& builder, const Bytes& below = {});

}  // namespace underlay::vdi::test
