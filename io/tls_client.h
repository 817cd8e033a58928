// A client's TLS handshake, by GnuTLS, for a connection that the kernel then encrypts
// (io/kernel_tls.h). Files and their names are those of libnbd.
#pragma once

#include <gnutls/gnutls.h>

#include <memory>
#include <string>

#include "io/error.h"
#include "io/kernel_tls.h"
#include "io/timed_socket.h"

namespace underlay {

struct TlsClientOptions {
  // The folder of ca-cert.pem, and optionally ca-crl.pem, client-cert.pem and client-key.pem. "" =
  // /etc/pki/libnbd, or the authorities that this system trusts when that has no ca-cert.pem.
  std::string certificates;
  std::string psk_file;  // lines USER:KEY, the key in hexadecimal; then there are no certificates
  std::string user;      // with psk_file; "" = the name of this process's user
  std::string hostname;  // what the server's certificate must be of
  bool verify_peer = true;  // false: any certificate will do
};

// For one connection and one thread.
class TlsClient {
 public:
  // Reads the files.
  static Result<std::unique_ptr<TlsClient>> create(const TlsClientOptions& options,
                                                   TlsVersion version);
  ~TlsClient();
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  // kNothingInCommon: the server does not speak this version with AES-GCM, or has credentials of
  // another kind, and the connection is of no more use. Fails with kDenied when one of the two does
  // not trust the other.
  enum class Outcome : uint8_t { kDone, kNothingInCommon };
  Result<Outcome> handshake(TimedSocket& socket);

  // From here on the kernel encrypts, and this has nothing more to do. REQUIRES: the handshake is
  // done, and the socket is prepared (prepare_kernel_tls()).
  Result<void> hand_over(int socket);

 private:
  TlsClient(TlsVersion version, std::string hostname)
      : version_(version), hostname_(std::move(hostname)) {}
  Result<void> use_certificates(const TlsClientOptions& options);
  Result<void> use_psk(const TlsClientOptions& options);
  Failure failed_handshake(int status) const;
  Result<void> hand_over(int socket, KernelTlsDirection direction);

  const TlsVersion version_;
  const std::string hostname_;  // the session points to it
  gnutls_session_t session_ = nullptr;
  gnutls_certificate_credentials_t certificates_ = nullptr;
  gnutls_psk_client_credentials_t psk_ = nullptr;
};

}  // namespace underlay
