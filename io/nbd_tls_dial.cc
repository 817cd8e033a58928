#include "io/nbd_tls_dial.h"

#include <optional>

#include "io/kernel_tls.h"
#include "io/nbd_negotiation.h"
#include "io/nbd_tls_address.h"
#include "io/timed_socket.h"
#include "io/tls_client.h"

namespace underlay {
namespace {

// nullopt: not with that version.
Result<std::optional<DialedExport>> try_version(const NbdTlsAddress& address, TlsVersion version,
                                                TimedSocket::Clock::time_point until) {
  const auto tls = TRY(TlsClient::create(address.tls, version));
  TimedSocket socket = TRY(TimedSocket::connect_tcp(address.host, address.port, until));
  // Before anything is said: most kernels that cannot do it are found out here.
  TRY(prepare_kernel_tls(socket.fd()));
  TRY(negotiate_starttls(socket));
  if (TRY(tls->handshake(socket)) == TlsClient::Outcome::kNothingInCommon) {
    return std::optional<DialedExport>();
  }
  TRY(tls->hand_over(socket.fd()));
  const NegotiatedExport negotiated = TRY(negotiate_go(socket, address.export_name));
  DialedExport dialed;
  dialed.size_bytes = negotiated.size_bytes;
  dialed.transmission_flags = negotiated.transmission_flags;
  dialed.min_block = negotiated.min_block;
  dialed.socket = TRY(std::move(socket).release());
  return std::optional(std::move(dialed));
}

// The kernel's nbd takes anything but data for a broken connection. In TLS 1.2 a server says
// nothing else after the handshake. In 1.3 it may send tickets, which come before its answer to
// NBD_OPT_GO and are passed over with it; and new keys, as GnuTLS does after 2^24 records, at which
// the connection breaks and is made anew as after any loss. So 1.3 is for servers that speak
// nothing else.
Result<DialedExport> dial(const std::string& uri, std::chrono::milliseconds limit) {
  const auto until = TimedSocket::Clock::now() + limit;
  const NbdTlsAddress address = TRY(parse_nbd_tls_address(uri));
  for (const TlsVersion version : {TlsVersion::k12, TlsVersion::k13}) {
    if (auto dialed = TRY(try_version(address, version, until))) return std::move(*dialed);
  }
  return fail(
      ErrorKind::kUnsupported,
      "the server has nothing in common with this client: it must speak TLS 1.2 or 1.3 with "
      "AES-GCM, and have {}",
      address.tls.psk_file.empty() ? "a certificate" : "pre-shared keys");
}

}  // namespace

Result<DialedExport> dial_nbd_tls(const std::string& uri, std::chrono::milliseconds limit) {
  auto dialed = dial(uri, limit);
  if (dialed || !dialed.error().file.empty() || dialed.error().kind == ErrorKind::kUsage) {
    return dialed;
  }
  return with_context(std::move(dialed).error(), "cannot connect: ");
}

}  // namespace underlay
