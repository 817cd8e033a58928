// Tar archives in memory, whole ones and ones with a single wrong field.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "io/bytes.h"

namespace underlay {

using Bytes = std::vector<std::byte>;

// POSIX.1-2017, "ustar Interchange Format".
class TarBuilder {
 public:
  // Changes a header before its checksum is made.
  using Change = std::function<void(MutableByteSpan header)>;

  TarBuilder& add(std::string_view name, std::string_view data, char typeflag = '0',
                  const Change& change = {});
  // The archive; `end_records` records of zeros behind it.
  Bytes build(size_t end_records = 2) const;

 private:
  std::string bytes_;
};

// "LENGTH KEY=VALUE\n"
std::string pax_record(std::string_view key, std::string_view value);

void put_text(MutableByteSpan bytes, size_t offset, std::string_view text);

}  // namespace underlay
