// What formats/reader.h and formats/disk.h promise of an image that was opened, whatever its bytes.
#pragma once

#include <optional>

#include "formats/disk.h"

namespace underlay {

// Maps and reads `disk` for every purpose, as far as some hundred steps go, and so that every kind
// of table entry is reached that a small file can hold. Aborts when a rule breaks. Returns the
// first failure to say where something lies, or to read what is stored as it is (not to unpack).
std::optional<Error> check_disk(const Disk& disk);

}  // namespace underlay
