// What the head of a sparse extent's file says, whatever kind of extent it is.
#pragma once

#include "formats/vmdk_geometry.h"
#include "formats/vmdk_layout.h"
#include "io/source.h"

namespace underlay {

struct VmdkSparseFile {
  VmdkGeometry geometry;
  uint64_t redundant_directory = 0;  // its sector; 0: there is none
  bool unclean_shutdown = false;
};

// The header of a hosted sparse extent; that of its footer when the first one says so. May block.
// Errors name the file.
Result<VmdkSparseHeader> read_vmdk_sparse_header(const Source& source);

VmdkSparseFile hosted_sparse_file(const VmdkSparseHeader& header);

// Reads the header of an extent that a descriptor names: hosted, COWD or seSparse, by its magic
// number. May block. kUnsupported when a seSparse extent has a journal that must be replayed.
// Errors name the file.
Result<VmdkSparseFile> read_vmdk_sparse_file(const Source& source);

}  // namespace underlay
