// What a server proves itself with, and what it demands of its clients. GnuTLS, as qemu and nbdkit
// use it, so that their key material serves unchanged.
#pragma once

#include <gnutls/gnutls.h>

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "formats/encryption/secret.h"
#include "io/error.h"
#include "server/tls/authorization.h"
#include "server/tls/psk_file.h"
#include "server/tls/tls_object.h"

namespace underlay {

// Immutable, shared by all connections. Loaded before the sandbox closes: no file is read later.
class TlsCredentials {
 public:
  // Reads the files of the folder. A certificate of the server's own that is not valid today is
  // refused: clients would be told so one by one. `authorization`: of x509 with verify-peer.
  static Result<std::shared_ptr<const TlsCredentials>> load(
      const TlsObject& object, std::span<const SecretFile> secrets,
      std::optional<Authorization> authorization);
  ~TlsCredentials();
  TlsCredentials(const TlsCredentials&) = delete;
  TlsCredentials& operator=(const TlsCredentials&) = delete;

  // Gives them to a new session of a server, which this outlives. GnuTLS's error code, 0 for none.
  int apply(gnutls_session_t session) const;
  // After the handshake: may this client connect? Its certificate has been verified by then.
  Result<void> authorize(gnutls_session_t session) const;

 private:
  TlsCredentials() = default;
  Result<void> load_x509(const TlsObject& object, std::span<const SecretFile> secrets);
  Result<void> load_psk(const TlsObject& object);
  static int find_key(gnutls_session_t session, const char* user, gnutls_datum_t* key);
  Result<void> read_priority(const TlsObject& object);

  gnutls_certificate_credentials_t x509_ = nullptr;
  gnutls_psk_server_credentials_t psk_ = nullptr;
  gnutls_priority_t priority_ = nullptr;
  std::optional<PskFile> keys_;
  bool verify_peer_ = false;
  std::optional<Authorization> authorization_;
};

}  // namespace underlay
