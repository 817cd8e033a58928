// LUKS 1 containers in memory (LUKS On-Disk Format Specification 1.2.3), for tests that put one
// wrong field into them. The cryptography is OpenSSL's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/bytes.h"

namespace underlay {

// aes-xts-plain64 with a key of 64 bytes, SHA-256, one key slot in use.
class LuksBuilder {
 public:
  using Bytes = std::vector<std::byte>;

  explicit LuksBuilder(std::string_view passphrase);

  Bytes container;  // header and key material

  // `plain`, whole sectors, as it is stored from this sector on.
  Bytes encrypted(uint64_t first_sector, ByteSpan plain) const;

  void set_text(uint64_t offset, std::string_view text);
  void set32(uint64_t offset, uint32_t value) {
    store_be(MutableByteSpan(container), offset, value);
  }
  static constexpr uint64_t kFirstSlot = 208;

 private:
  Bytes key_;
};

}  // namespace underlay
