// Growing byte string that replies of the handshake are written to.
#pragma once

#include <string_view>
#include <vector>

#include "io/bytes.h"

namespace underlay {

class WireBuffer {
 public:
  template <class T>
  void put(T value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof(T));
    store_be<T>(bytes_, at, value);
  }
  void put_text(std::string_view text) {
    const ByteSpan bytes = as_bytes(text);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void put_zeros(size_t count) { bytes_.resize(bytes_.size() + count); }
  ByteSpan bytes() const { return bytes_; }
  // Gives the memory back, too: a list of exports may be long, and connections many.
  void clear() { bytes_ = {}; }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace underlay
