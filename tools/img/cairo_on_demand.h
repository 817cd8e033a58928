// cairo, loaded when the first picture is drawn: nothing else needs it.
#pragma once

#include "io/error.h"

namespace underlay::img {

// Fails when it cannot be loaded, naming the package. REQUIRED before any function of cairo.
Result<void> load_cairo();

}  // namespace underlay::img
