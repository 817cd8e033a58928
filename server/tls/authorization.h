// Which identities may connect: qemu's authz objects.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"
#include "server/tls/tls_object.h"

namespace underlay {

// Immutable.
class Authorization {
 public:
  // Reads the file of an authz-list-file. May block.
  static Result<Authorization> load(const AuthzObject& object);
  // `text`: what such a file holds, {"rules": [{"match", "policy", "format"}], "policy"}, as in
  // qemu's QAuthZList.
  static Result<Authorization> parse(std::string_view text);

  // `identity`: the distinguished name of a certificate, as GnuTLS writes it.
  bool allows(const std::string& identity) const;

 private:
  struct Rule {
    std::string match;
    bool glob = false;  // match is a pattern of fnmatch(3)
    bool allow = false;
  };
  std::vector<Rule> rules_;  // the first one that matches decides
  bool otherwise_ = false;
};

}  // namespace underlay
