// Decrypts sectors of an encrypted disk. The cipher is OpenSSL's.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "formats/encryption/secret.h"
#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

// One of those that are served, in LUKS's words: "aes", "xts-plain64".
struct CipherSpec {
  const char* name = nullptr;  // OpenSSL's
  uint32_t key_bytes = 0;
  bool iv_is_64_bits = true;  // of the sector's number: plain64, else plain
};

// kUnsupported for what is not served: AES in XTS and CBC mode, plain64 and plain, is.
Result<CipherSpec> parse_cipher_spec(std::string_view cipher, std::string_view mode,
                                     uint32_t key_bytes);

// Thread-safe.
class SectorCipher {
 public:
  static constexpr size_t kSectorBytes = 512;

  // REQUIRES: key.size() == spec.key_bytes.
  static Result<std::unique_ptr<const SectorCipher>> create(const CipherSpec& spec,
                                                            const Secret& key);

  // Decrypts whole sectors where they are; the first one has this number.
  // REQUIRES: bytes.size() is a multiple of kSectorBytes.
  Result<void> decrypt(uint64_t first_sector, MutableByteSpan bytes) const;

  ~SectorCipher();

 private:
  struct Keyed;
  SectorCipher(std::unique_ptr<Keyed> keyed, bool iv_is_64_bits);

  std::unique_ptr<Keyed> keyed_;  // has the key; copied for each use
  bool iv_is_64_bits_;
};

}  // namespace underlay
