// Numbers and texts, one after the other, as bytes between two processes of this program.
#pragma once

#include <string>
#include <string_view>

#include "io/bytes.h"

namespace underlay::thin {

class FieldWriter {
 public:
  void number(uint64_t value) {
    std::array<std::byte, sizeof(value)> field;
    store_be(field, 0, value);
    bytes_ += as_text(field);
  }
  void text(std::string_view text) {
    number(text.size());
    bytes_ += text;
  }
  std::string take() && { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Fields that are not there read as 0 and "", and make ok() false for good. Allocates no more than
// there are bytes.
class FieldReader {
 public:
  explicit FieldReader(std::string_view bytes) : reader_(as_bytes(bytes)) {}

  uint64_t number() { return reader_.be<uint64_t>(); }
  std::string text() { return std::string(as_text(reader_.bytes(number()))); }
  // How many of something follow, each of at least `bytes_each` bytes; 0 and not ok() when so many
  // cannot follow.
  size_t count(size_t bytes_each) {
    const uint64_t count = number();
    if (count <= reader_.remaining() / bytes_each) return count;
    reader_.skip(SIZE_MAX);
    return 0;
  }
  bool ok() const { return reader_.ok(); }
  bool at_end() const { return reader_.ok() && reader_.remaining() == 0; }

 private:
  ByteReader reader_;
};

}  // namespace underlay::thin
