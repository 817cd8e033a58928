// The options of underlay-nbd about TLS: --object tls-creds-*, --object authz-*, --tls-creds and
// --tls-authz with qemu-nbd's meaning, and --tls.
#pragma once

#include "io/error.h"
#include "server/option_rules.h"
#include "server/options.h"

namespace underlay {

// Of a server. What is no valid use fails with kUsage.
Result<void> read_tls(const GivenOptions& given, Options& options);
// Of -L, which is a client.
Result<void> read_tls_of_client(const GivenOptions& given, Options& options);

}  // namespace underlay
