// Where an image's structures lie: seen when it is opened, so that no later read trips over it.
#pragma once

#include <vector>

#include "formats/qcow2/qcow2_layout.h"
#include "io/source.h"

namespace underlay {

// The file's first `length` bytes, or all when it has fewer. REQUIRES: `length` was checked against
// a limit.
Result<std::vector<std::byte>> read_front(const Source& file, uint64_t length);

// Fails when a structure that the header names cannot be where it is said to be: beyond the end of
// the file, or where another one lies. No I/O.
Result<void> check_qcow2_structures(const Source& file, const Qcow2Header& header,
                                    const Qcow2Extensions& extensions);

}  // namespace underlay
