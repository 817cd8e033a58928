#include "formats/windows_path.h"

#include <algorithm>

namespace underlay {
namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

}  // namespace

std::string name_of_windows_path(std::string_view path) {
  std::string name(path);
  std::replace(name.begin(), name.end(), '\\', '/');
  const bool drive = name.size() >= 2 && is_letter(name[0]) && name[1] == ':';
  if (drive || name.starts_with("//")) {
    name.erase(0, drive ? 2 : 0);
    return name.substr(name.rfind('/') + 1);  // all of it when there is no slash: npos + 1 is 0
  }
  while (name.starts_with("./")) name.erase(0, name.find_first_not_of('/', 1));
  return name;
}

}  // namespace underlay
