// libcryptsetup and OpenSSL's libcrypto, loaded when an encrypted image is opened, or a digest is
// asked for (io/on_demand.h).
#pragma once

#include "io/error.h"

namespace underlay {

// Must have succeeded before a function of theirs is called. Thread-safe; may block.
Result<void> load_crypto_libraries();

// The same of libcrypto alone.
Result<void> load_libcrypto();

}  // namespace underlay
