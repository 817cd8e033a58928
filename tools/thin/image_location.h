// Where an image lies: in a file, or in a member of an archive (FILE#MEMBER).
#pragma once

#include <string>

#include "io/error.h"

namespace underlay::thin {

struct ImageLocation {
  std::string file;
  std::string member;  // "" = the file itself

  std::string text() const { return member.empty() ? file : file + "#" + member; }
};

// What the operator, or a record, means by `text`. A file that is called FILE#MEMBER is meant
// itself.
ImageLocation image_location(const std::string& text);

// `text` with the folder of its file resolved: absolute, no symbolic link in it.
Result<std::string> with_resolved_file(const std::string& text);

}  // namespace underlay::thin
