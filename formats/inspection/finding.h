// What is wrong, or smells, in an image: what check and audit tell.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "formats/defect.h"
#include "io/error.h"

namespace underlay {

struct Finding {
  enum class Kind : uint8_t {
    kCorruption,  // what is read may be wrong or fail
    kLeak,        // space of the file that nothing uses: wasted, but every byte reads right
    kFailure,     // a part of the image could not be looked at
    kNotice,      // allowed, but worth knowing
  };

  Kind kind = Kind::kCorruption;
  std::string code;     // names the rule for machines, in kebab case: "l2-beyond-end"
  std::string message;  // one line: field, value, limit; bytes of the image in it are printable()
  std::optional<uint64_t> offset{};  // byte in the file
};

// What `error` says of the image's own file.
inline Finding finding_of(Finding::Kind kind, std::string code, Error error) {
  const std::optional<uint64_t> offset = error.offset;
  error.file.clear();
  error.offset.reset();
  return {.kind = kind, .code = std::move(code), .message = error.to_string(), .offset = offset};
}

// What keeps an image from being served (kCorruption), and what does not (kNotice).
inline Finding finding_of(const Defect& defect) {
  return finding_of(Finding::Kind::kCorruption, std::string(defect.code), defect.error);
}
inline Finding finding_of(const Remark& remark) {
  return {.kind = Finding::Kind::kNotice,
          .code = std::string(remark.code),
          .message = printable(remark.text)};
}

}  // namespace underlay
