// libcryptsetup and OpenSSL's libcrypto, loaded when an encrypted image is opened (io/on_demand.h).
#pragma once

#include "io/error.h"

namespace underlay {

// Must have succeeded before a function of theirs is called. Thread-safe; may block.
Result<void> load_crypto_libraries();

}  // namespace underlay
