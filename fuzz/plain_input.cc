#include "fuzz/image_of_input.h"

namespace underlay {

std::vector<std::byte> image_of_input(ByteSpan input) { return {input.begin(), input.end()}; }

}  // namespace underlay
