// Lists as qemu's options write them: "a,b,c".
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace underlay {

// The parts between single commas, at least one; two commas are one comma of a part.
std::vector<std::string> split_at_commas(std::string_view text);

}  // namespace underlay
