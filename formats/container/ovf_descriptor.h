// An OVF descriptor, as bytes: OVF specification (DMTF DSP0243), version 1.1. Pure: no I/O.
//
//   <Envelope>
//     <References>                                            (7.1)
//       <File ovf:id="file1" ovf:href="disk1.vmdk" ovf:compression="gzip" ovf:chunkSize="..."/>
//     <DiskSection>                                           (9.1)
//       <Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="..."/>
//
// Elements and attributes are known by their local names: writers use several namespaces.
#pragma once

#include <string>
#include <vector>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay::ovf {

inline constexpr uint64_t kMaxDescriptorBytes = 4 << 20;

struct DiskFile {
  std::string href;      // any text
  bool chunked = false;  // cut into several files, href.000000000, ...
};

// The files of all disks; a disk without a file is an empty one and not among them.
Result<std::vector<DiskFile>> parse_disks(ByteSpan descriptor);

}  // namespace underlay::ovf
