// What the head of a sparse extent's file says, whatever kind of extent it is.
#pragma once

#include "formats/vmdk/vmdk_geometry.h"
#include "formats/vmdk/vmdk_layout.h"
#include "io/source.h"

namespace underlay {

struct VmdkSparseFile {
  VmdkGeometry geometry;
  uint64_t redundant_directory = 0;  // its sector; 0: there is none
  uint64_t free_sector = 0;          // COWD: behind the last table or grain
  bool unclean_shutdown = false;
};

// The header of a hosted sparse extent; that of its footer when the first one says so. May block.
// Errors name the file.
Result<VmdkSparseHeader> read_vmdk_sparse_header(const Source& source);

// The footer, which is a header, of a file whose first one is `header` and says that there is one.
// May block.
struct VmdkFooter {
  VmdkSparseHeader header;
  uint64_t offset = 0;  // byte in the file, of kVmdkFooterBytes
};
Result<VmdkFooter> read_vmdk_footer(const Source& source, const VmdkSparseHeader& header);

VmdkSparseFile hosted_sparse_file(const VmdkSparseHeader& header);

// Reads the header of an extent that a descriptor names: hosted, COWD or seSparse, by its magic
// number. May block. kUnsupported when a seSparse extent has a journal that must be replayed.
// Errors name the file.
Result<VmdkSparseFile> read_vmdk_sparse_file(const Source& source);

}  // namespace underlay
