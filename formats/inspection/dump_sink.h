// Where Inspector::dump() puts what it sees.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "io/error.h"

namespace underlay {

// In the order in which the dump goes through the file. Nothing is kept.
class DumpSink {
 public:
  virtual ~DumpSink() = default;
  // A structure begins: "header", "L1 table". `offset`, `length`: bytes in the file.
  virtual Result<void> begin(std::string_view name, uint64_t offset, uint64_t length) = 0;
  // Are the fields of the structures called so of use? When not they need not be read: the
  // operator may want the header of an image whose tables are large.
  virtual bool wants_fields(std::string_view name) const {
    (void)name;
    return true;
  }
  // A field of it, by its layout header's name; "[N]" for entry N of a table. `value` as a person
  // reads it; `meaning` what the value says in words, "" when it speaks for itself.
  virtual Result<void> field(std::string_view name, uint64_t offset, uint64_t length,
                             const nlohmann::ordered_json& value, std::string_view meaning) = 0;
  // Fails with kIo and EINTR when the operator wants it to end, with EPIPE when nobody reads.
};

}  // namespace underlay
