// underlay-thin-faulty: dies at the point that UNDERLAY_FAULT names, as if it had been killed
// there.
#include "tools/thin/fault_point.h"

#include <csignal>
#include <cstdlib>

namespace underlay::thin {

void fault_point(std::string_view name) {
  const char* wanted = std::getenv("UNDERLAY_FAULT");
  if (wanted != nullptr && name == wanted) {
    std::raise(SIGKILL);
  }
}

}  // namespace underlay::thin
