// Pre-shared keys, as psktool(1) keeps them: lines USER:KEY, the key in hexadecimal.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "formats/encryption/secret.h"
#include "io/error.h"

namespace underlay {

// Read once: GnuTLS would open the file for each client, which the sandbox forbids.
class PskFile {
 public:
  // May block.
  static Result<PskFile> load(const std::string& path);
  static Result<PskFile> parse(std::string_view text);

  // The key of that user; null for nobody.
  const Secret* find(std::string_view user) const;

 private:
  std::map<std::string, Secret, std::less<>> keys_;
};

}  // namespace underlay
