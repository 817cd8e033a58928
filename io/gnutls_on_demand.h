// GnuTLS, loaded when the operator asks for TLS: see io/on_demand.h.
#pragma once

namespace underlay {

// Is it there? To be called before any function of GnuTLS, once before the sandbox closes.
bool load_gnutls();

}  // namespace underlay
