#include "formats/options/chain_options.h"

#include "formats/options/option_values.h"

namespace underlay {

Result<ParentPath> parse_parent_path(std::string_view option, std::string_view value) {
  const size_t equals = value.find('=');
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == value.size()) {
    return fail(ErrorKind::kUsage, "{}: \"{}\" is not CHILD=PATH", option, printable(value, 200));
  }
  return ParentPath{.child = std::string(value.substr(0, equals)),
                    .path = std::string(value.substr(equals + 1))};
}

Result<ReaderChoice> parse_reader(std::string_view option, std::string_view value) {
  TRY(check_one_of(option, value, {"own", "libyal"}));
  return value == "own" ? ReaderChoice::kOwn : ReaderChoice::kLibyal;
}

}  // namespace underlay
