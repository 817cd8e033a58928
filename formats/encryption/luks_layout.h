// The header of a LUKS version 1 container, as the LUKS On-Disk Format Specification 1.2.3 has it:
// bytes in, checked host-order values out. No I/O. All integers are big-endian, texts end with NUL.
//
// Header ("PHDR Layout"), 592 bytes:
//      0  6 magic "LUKS\xba\xbe"         108  4 key-bytes
//      6  2 version (1)                  112 20 mk-digest
//      8 32 cipher-name ("aes")          132 32 mk-digest-salt
//     40 32 cipher-mode ("xts-plain64")  164  4 mk-digest-iter
//     72 32 hash-spec ("sha256")         168 40 uuid
//    104  4 payload-offset (sectors)     208    8 key slots of 48 bytes
//
// Key slot ("Key slot layout"):
//      0  4 active (0x00ac71f3, else no)   40  4 key-material-offset (sectors)
//      4  4 iterations                     44  4 stripes
//      8 32 salt
//
// Only what decides whether and how the container can be unlocked is taken from it here; unlocking
// (key derivation, key material, digest) is libcryptsetup's.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "formats/encryption/sector_cipher.h"
#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

struct LuksHeader {
  static constexpr size_t kBytes = 592;
  static constexpr size_t kSlots = 8;
  static constexpr uint32_t kStripes = 4000;
  // A passphrase costs one such derivation for each slot: 50 million take a minute at most.
  static constexpr uint32_t kMaxIterations = 50'000'000;

  CipherSpec cipher;
  uint32_t key_bytes = 0;
};

// The fields as they stand.
struct LuksKeySlot {
  bool active = false;
  uint32_t iterations = 0;
  uint32_t material_sector = 0;
  uint32_t stripes = 0;
};
struct LuksFields {
  // Live as long as the bytes they were loaded from.
  std::string_view cipher_name, cipher_mode, hash_spec, uuid;
  uint32_t payload_sector = 0;
  uint32_t key_bytes = 0;
  uint32_t digest_iterations = 0;
  std::array<LuksKeySlot, LuksHeader::kSlots> slots;
};

// `container`: LuksHeader::kBytes or more. Fails only when it does not begin with a header of
// version 1.
Result<LuksFields> load_luks_header(ByteSpan container);

// `container`: header and key material, all that there is of them. kUnsupported: another version,
// or a cipher that is not served.
Result<LuksHeader> parse_luks_header(ByteSpan container);

}  // namespace underlay
