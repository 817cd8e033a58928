// What formats/inspection/inspector.h promises of any bytes.
#pragma once

#include <optional>

#include "formats/inspection/image_facts.h"
#include "formats/inspection/inspector.h"

namespace underlay {

struct Inspected {
  std::optional<ImageFacts> facts;  // nullopt: describe() failed
  bool checked = false;             // check() looked at everything...
  bool clean = false;               // ...and found neither damage nor what it could not look at
  bool dumped = false;              // dump() came to its end, or to that of the fuzzer's patience
};

// Describes, checks and dumps `file`. Aborts when a rule breaks.
Inspected inspect(const Inspector& inspector, const FileToInspect& file);

}  // namespace underlay
