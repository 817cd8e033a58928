// The header and the descriptor of a VMDK file, as far as they can be understood: for people who
// look into images that are not served.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "formats/inspection/finding.h"
#include "formats/vmdk/vmdk_descriptor.h"
#include "formats/vmdk/vmdk_layout.h"
#include "formats/vmdk/vmdk_sparse_file.h"
#include "io/source.h"

namespace underlay {

struct VmdkHead {
  VmdkMagic magic = VmdkMagic::kNone;
  std::optional<VmdkSparseHeader> header;  // kSparse: as it stands, when it is damaged
  bool has_footer = false;                 // kSparse: the header says so
  // Of COWD and seSparse extents, and of hosted ones that are no mere descriptor: when their
  // headers can be used.
  std::optional<VmdkSparseFile> extent;
  uint64_t descriptor_offset = 0;            // byte in the file
  std::optional<VmdkDescriptor> descriptor;  // nullopt: there is none
  // kCorruption: the reader refuses the image.
  std::vector<Finding> findings;

  // Is the file itself the one extent, which the descriptor in it describes?
  bool has_own_extent() const { return header && header->capacity > 0 && descriptor; }
  // Guest-visible sectors: the sum of the descriptor's extents, or the header's capacity. At most
  // kVmdkMaxSectors.
  uint64_t sectors() const;
};

// Fails when the file is no VMDK file, or too short for its header. May block.
Result<VmdkHead> read_vmdk_head(const Source& source);

// The finding's code of a header that is refused with `error`.
std::string_view vmdk_header_code(const Error& error);

Finding vmdk_unclean_shutdown();

}  // namespace underlay
