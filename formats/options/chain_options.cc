#include "formats/options/chain_options.h"

#include "formats/options/option_values.h"
#include "io/http/remote_name.h"

namespace underlay {

Result<ParentPath> parse_parent_path(std::string_view option, std::string_view value) {
  const size_t equals = value.find('=');
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == value.size()) {
    return fail(ErrorKind::kUsage, "{}: \"{}\" is not CHILD=PATH", option, printable(value, 200));
  }
  if (is_remote_name(value) && value.substr(0, equals).find('?') != std::string_view::npos) {
    return fail(ErrorKind::kUsage, "{}: name the child without its query, as messages do: {}=PATH",
                option, shown_name(std::string(value)));
  }
  return ParentPath{.child = std::string(value.substr(0, equals)),
                    .path = std::string(value.substr(equals + 1))};
}

Result<ReaderChoice> parse_reader(std::string_view option, std::string_view value) {
  TRY(check_one_of(option, value, {"own", "libyal"}));
  return value == "own" ? ReaderChoice::kOwn : ReaderChoice::kLibyal;
}

}  // namespace underlay
