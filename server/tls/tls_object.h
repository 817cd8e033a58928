// What the operator says about TLS: qemu's objects tls-creds-x509, tls-creds-psk and authz-*.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"

namespace underlay {

// Credentials in a folder, by the names that qemu gives them: ca-cert.pem, ca-crl.pem,
// server-cert.pem, server-key.pem; keys.psk.
struct TlsObject {
  enum class Kind : uint8_t { kX509, kPsk };
  enum class Endpoint : uint8_t { kClient, kServer };

  std::string id;
  Kind kind = Kind::kX509;
  Endpoint endpoint = Endpoint::kClient;  // as in qemu, a server says so
  std::string folder;                     // dir=
  bool verify_peer = true;                // x509: clients must show a certificate
  std::string priority;                   // of GnuTLS, "" = the default
  std::string password_id;                // x509: the secret that the private key is locked with
  std::string user = "qemu";              // psk, of a client
};

// Who may connect, by the distinguished name of the certificate: qemu's authz-simple and
// authz-list-file.
struct AuthzObject {
  std::string id;
  std::string identity;   // authz-simple: the one that may; "" for a list
  std::string list_file;  // authz-list-file: rules, JSON
};

// Does `word` begin with the type of such an object ("tls-creds-x509,...")?
bool is_tls_object(std::string_view word);
bool is_authz_object(std::string_view word);

// `option` is for messages. What is no valid use fails with kUsage, what qemu has and this program
// does not with kUnsupported.
Result<TlsObject> parse_tls_object(std::string_view option, std::string_view word);
Result<AuthzObject> parse_authz_object(std::string_view option, std::string_view word);

}  // namespace underlay
