// A VMDK image opened from memory, and all that it was opened with.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/disk.h"
#include "tests/support/vmdk_builder.h"

namespace underlay::vmdk_test {

using Bytes = std::vector<std::byte>;

class Opened {
 public:
  explicit Opened(std::shared_ptr<const Source> source, const FilesInMemory& files = {});

  // REQUIRES: result.
  const Reader& reader() const { return *result.value(); }

  std::shared_ptr<Caches> caches = std::make_shared<Caches>();
  std::vector<std::string> warnings;
  Result<std::shared_ptr<const Reader>> result;
};

// All bytes of the disk, or the first failure. Absent parents read as zeros.
Result<Bytes> read_all(const Opened& opened);
Result<Bytes> read_all(const BuiltVmdk& image);

// What a read of each `step` bytes gives.
std::vector<Result<Bytes>> read_steps(const Opened& opened, uint64_t step);

// build_vmdk() with a descriptor.
BuiltVmdk monolithic(const Bytes& content, VmdkSpec spec);

}  // namespace underlay::vmdk_test
