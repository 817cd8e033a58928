// What a server's reply to a request that changes something means. Pure: no I/O.
#pragma once

#include <string>
#include <string_view>

#include "io/error.h"

namespace underlay {

struct WriteVerdict {
  enum class Meaning : uint8_t { kDone, kLater, kKeys, kFailed };
  Meaning meaning = Meaning::kDone;
  Result<void> result;  // an error unless kDone; without the object's name
};

// RFC 9110, 9.3.4 (PUT): 2xx is done. `document`: the front of the reply's body.
WriteVerdict judge_write(long status, std::string_view document);

// Keeps the front of a reply's body: enough for an error's code, an upload's number.
void add_to_document(std::string_view part, std::string& document);

}  // namespace underlay
