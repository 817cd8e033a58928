// Which file of a tar archive is the disk. OVF specification (DMTF DSP0243), version 1.1: an OVA is
// a tar archive that begins with an OVF descriptor (7.1, "References": its files; 9.1,
// "DiskSection": its disks).
#pragma once

#include <string_view>
#include <vector>

#include "formats/container/tar.h"

namespace underlay::ova {

// The one disk: what the descriptor's DiskSection names; without a descriptor, the only file whose
// name ends as those of disk images do. Fails when there is none, or when there are several: with
// their names, and how to choose. May block.
Result<tar::Member> choose_disk(const Source& archive, const std::vector<tar::Member>& members);

// The member `name`; kNotFound when there is none, also when there are several.
Result<tar::Member> find_member(const Source& archive, const std::vector<tar::Member>& members,
                                std::string_view name);

}  // namespace underlay::ova
