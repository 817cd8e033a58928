// Builds the sparse extents of ESX snapshots in memory, which qemu-img does not make, for tests
// that then break one field. VMware "Virtual Disk Format 5.0", section "ESX Server Sparse Extents",
// for COWD; the structures of QEMU's block/vmdk.c for seSparse.
#pragma once

#include <string>
#include <vector>

#include "io/bytes.h"

namespace underlay::vmdk_test {

struct BuiltEsx {
  std::vector<std::byte> bytes;
  uint64_t entry_bytes = 0;
  uint64_t directory = 0;        // byte of the grain directory in the file
  std::vector<uint64_t> tables;  // byte of each grain table, 0 for absent ones

  // Byte of a grain's entry in its grain table.
  uint64_t entry_offset(uint64_t grain) const;
  uint64_t entry(uint64_t grain) const;
  void set_entry(uint64_t grain, uint64_t value);
  void set_directory_entry(uint64_t table, uint64_t value);
};

// Grains of zeros, and tables without a grain, are absent. Sizes in sectors.
BuiltEsx build_cowd(ByteSpan content, uint64_t grain_size = 1);

// The same. Grains are stored from number `first_grain` on.
BuiltEsx build_se_sparse(ByteSpan content, uint64_t first_grain = 0);

// A seSparse table entry for a stored grain.
uint64_t se_sparse_stored(uint64_t number);

// A descriptor of createType with one extent, "extent", of `sectors`.
std::string esx_descriptor(std::string_view create_type, std::string_view extent_type,
                           uint64_t sectors);

}  // namespace underlay::vmdk_test
