// The body of fault_point() in underlay-thin-faulty: dies where UNDERLAY_FAULT says.
#include "tools/thin/fault_point.h"

#include <csignal>
#include <cstdlib>

namespace underlay::thin {

void fault_point(std::string_view name) {
  const char* const wanted = std::getenv("UNDERLAY_FAULT");
  if (wanted != nullptr && name == wanted) std::raise(SIGKILL);
}

}  // namespace underlay::thin
