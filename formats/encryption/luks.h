// Unlocks a LUKS container by a passphrase.
#pragma once

#include <memory>

#include "formats/encryption/secret.h"
#include "formats/encryption/sector_cipher.h"
#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

inline constexpr size_t kMaxLuksHeaderBytes = 16 << 20;  // with its key material

// `container`: header and key material; at most kMaxLuksHeaderBytes. What decrypts the payload, or
// why not: kDenied when no key slot opens with the passphrase. Takes as long as its maker wanted
// a try to take. Thread-safe.
Result<std::unique_ptr<const SectorCipher>> unlock_luks(ByteSpan container,
                                                        const Secret& passphrase);

}  // namespace underlay
