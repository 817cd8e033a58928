// VDIs of known contents, opened from memory: what the tests of the reader share.
#pragma once

#include <memory>
#include <string>

#include "formats/open_chain.h"
#include "io/faulty_source.h"
#include "io/memory_source.h"
#include "tests/support/vdi_builder.h"

namespace underlay::vdi::test {

// An opened image, and what outlives it.
struct Opened {
  std::unique_ptr<Caches> caches = std::make_unique<Caches>();
  Result<OpenedDisk> disk = fail(ErrorKind::kUsage, "not opened");

  const Disk* operator->() const { return disk.value().disk.get(); }
  explicit operator bool() const { return disk.has_value(); }
  // Why it was refused; kUsage, which no image leads to, when it was not.
  ErrorKind error() const { return disk ? ErrorKind::kUsage : disk.error().kind; }
  std::string message() const { return disk ? "" : disk.error().message; }
};

// Opens an image as "vdi".
Opened open(std::shared_ptr<const Source> source);
Opened open(const Bytes& image);

Result<Bytes> read(const Opened& opened, uint64_t offset, size_t length);
Bytes read_all(const Opened& opened);

constexpr uint32_t kBlock = 4096;
constexpr uint64_t kSize = 5 * kBlock + kBlock / 2;

// A disk of five and a half blocks: 1, 3 and 5 are stored in another order, 2 is discarded.
VdiBuilder dynamic();
// A child of it, with another block 1, and its block 3 discarded.
VdiBuilder differencing();

// What `builder` shows, over what its parent shows ("": no parent).
Bytes content_of(const VdiBuilder& builder, const Bytes& below = {});

}  // namespace underlay::vdi::test
