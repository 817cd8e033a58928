#include "io/tls_client.h"

#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "io/gnutls_on_demand.h"
#include "io/unique_fd.h"

namespace underlay {
namespace {

// AES-GCM is what the kernel has. PSK: as qemu and nbdkit offer it.
constexpr const char* kPriority12 =
    "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-256-GCM:+AES-128-GCM";
constexpr const char* kPriority13 =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-256-GCM:+AES-128-GCM";
constexpr const char* kPskAddition = ":+ECDHE-PSK:+DHE-PSK:+PSK";

constexpr const char* kSystemFolder = "/etc/pki/libnbd";
constexpr size_t kMaxHandshake = 64 << 10;  // bytes of one message
constexpr size_t kMaxPskFile = 1 << 20;
constexpr size_t kMaxReason = 400;

Failure tls_failure(int status, std::string_view what, const std::string& file) {
  return in_file(fail(ErrorKind::kMalformed, "{}: {}", what, ::gnutls_strerror(status)), file);
}

// The file of the folder; "" when there is none.
Result<std::string> find_file(const std::string& folder, const char* name) {
  std::string path = folder + "/" + name;
  struct stat found {};
  if (::stat(path.c_str(), &found) == 0) return path;
  if (errno == ENOENT) return std::string();
  return in_file(fail_errno(errno, "cannot look at it"), path);
}

// What is wrong with the server's certificate, in GnuTLS's words.
std::string verification_words(gnutls_session_t session) {
  gnutls_datum_t words{};
  const unsigned status = ::gnutls_session_get_verify_cert_status(session);
  if (::gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &words, 0) != 0) {
    return "it cannot be verified";
  }
  std::string text(reinterpret_cast<const char*>(words.data), words.size);
  std::free(words.data);  // gnutls_free(), unless somebody has given GnuTLS another allocator
  while (text.ends_with(' ') || text.ends_with('\n') || text.ends_with('\0')) text.pop_back();
  return printable(text, kMaxReason);
}

// Of the process's user: that of the environment is another when the connection is made again.
Result<std::string> own_name() {
  errno = 0;
  const passwd* const entry = ::getpwuid(::geteuid());
  if (entry != nullptr) return std::string(entry->pw_name);
  return fail(ErrorKind::kUsage, "user {} has no name: say nbds://USER@HOST", ::geteuid());
}

// Wipes what it held.
struct SecretText {
  SecretText() = default;
  SecretText(const SecretText&) = delete;
  SecretText& operator=(const SecretText&) = delete;
  ~SecretText() { ::explicit_bzero(text.data(), text.size()); }
  std::string text;
};

Result<void> read_psk_file(const std::string& path, SecretText& content) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  if (!fd.valid()) return fail_errno(errno, "cannot open the file of keys");
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return fail(ErrorKind::kUsage, "is no file");
  }
  if (static_cast<uint64_t>(status.st_size) > kMaxPskFile) {
    return fail(ErrorKind::kLimit, "a file of keys has {} bytes, and at most {} may be",
                status.st_size, kMaxPskFile);
  }
  content.text.resize(static_cast<size_t>(status.st_size));
  const ssize_t got = ::read(fd.get(), content.text.data(), content.text.size());
  if (got == status.st_size) return {};
  return fail_errno(got < 0 ? errno : 0, "the file of keys cannot be read to its end");
}

// The key of `user`, in hexadecimal: psktool(1) writes lines USER:KEY.
std::optional<std::string_view> find_psk(std::string_view text, std::string_view user) {
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    const size_t colon = line.rfind(':');
    if (colon != std::string_view::npos && line.substr(0, colon) == user) {
      return line.substr(colon + 1);
    }
  }
  return std::nullopt;
}

// Does the server say so? GnuTLS's servers do not tell versions from ciphers. Insufficient
// credentials: it shows a certificate, and pre-shared keys are what there is.
bool nothing_in_common(gnutls_session_t session, int status) {
  if (status == GNUTLS_E_UNSUPPORTED_VERSION_PACKET ||
      status == GNUTLS_E_INSUFFICIENT_CREDENTIALS) {
    return true;
  }
  if (status != GNUTLS_E_FATAL_ALERT_RECEIVED) return false;
  const gnutls_alert_description_t alert = ::gnutls_alert_get(session);
  return alert == GNUTLS_A_PROTOCOL_VERSION || alert == GNUTLS_A_HANDSHAKE_FAILURE ||
         alert == GNUTLS_A_INSUFFICIENT_SECURITY;
}

// `data` of GnuTLS's into a field that has exactly its size.
bool copy_exactly(const unsigned char* data, size_t size, MutableByteSpan field) {
  if (size != field.size()) return false;
  std::memcpy(field.data(), data, size);
  return true;
}

}  // namespace

TlsClient::~TlsClient() {
  if (session_ != nullptr) ::gnutls_deinit(session_);
  if (certificates_ != nullptr) ::gnutls_certificate_free_credentials(certificates_);
  if (psk_ != nullptr) ::gnutls_psk_free_client_credentials(psk_);
}

Result<std::unique_ptr<TlsClient>> TlsClient::create(const TlsClientOptions& options,
                                                     TlsVersion version) {
  if (!load_gnutls()) {
    return fail(ErrorKind::kUnsupported,
                "TLS: libgnutls.so.30 cannot be loaded: install the package libgnutls30");
  }
  std::unique_ptr<TlsClient> made(new TlsClient(version, options.hostname));
  // No tickets: none shall come when the kernel has the connection, and it resumes no session.
  int status = ::gnutls_init(
      &made->session_, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS);
  if (status == 0) {
    std::string priority = version == TlsVersion::k12 ? kPriority12 : kPriority13;
    if (!options.psk_file.empty()) priority += kPskAddition;
    status = ::gnutls_priority_set_direct(made->session_, priority.c_str(), nullptr);
  }
  if (status != 0) return fail(ErrorKind::kUnsupported, "TLS: {}", ::gnutls_strerror(status));
  ::gnutls_handshake_set_max_packet_length(made->session_, kMaxHandshake);
  if (options.psk_file.empty()) {
    TRY(made->use_certificates(options));
  } else {
    auto used = made->use_psk(options);
    if (!used) return in_file(std::move(used).error(), options.psk_file);
  }
  return made;
}

Result<void> TlsClient::use_certificates(const TlsClientOptions& options) {
  const bool chosen = !options.certificates.empty();
  const std::string folder = chosen ? options.certificates : kSystemFolder;
  int status = ::gnutls_certificate_allocate_credentials(&certificates_);
  if (status != 0) return tls_failure(status, "no credentials", folder);
  const std::string authority = TRY(find_file(folder, "ca-cert.pem"));
  if (authority.empty() && chosen) {
    return in_file(fail(ErrorKind::kNotFound, "has no ca-cert.pem, the server's authority"),
                   folder);
  }
  status = authority.empty() ? ::gnutls_certificate_set_x509_system_trust(certificates_)
                             : ::gnutls_certificate_set_x509_trust_file(
                                   certificates_, authority.c_str(), GNUTLS_X509_FMT_PEM);
  if (status <= 0) return tls_failure(status, "no certificate of an authority", authority);
  const std::string revoked = TRY(find_file(folder, "ca-crl.pem"));
  if (!revoked.empty()) {
    status =
        ::gnutls_certificate_set_x509_crl_file(certificates_, revoked.c_str(), GNUTLS_X509_FMT_PEM);
    if (status < 0) return tls_failure(status, "cannot be loaded", revoked);
  }
  const std::string own = TRY(find_file(folder, "client-cert.pem"));
  const std::string key = TRY(find_file(folder, "client-key.pem"));
  if (own.empty() != key.empty()) {
    return in_file(fail(ErrorKind::kNotFound, "client-cert.pem and client-key.pem: has one of two"),
                   folder);
  }
  if (!own.empty()) {
    status = ::gnutls_certificate_set_x509_key_file2(certificates_, own.c_str(), key.c_str(),
                                                     GNUTLS_X509_FMT_PEM, nullptr, 0);
    if (status < 0) return tls_failure(status, "certificate and key cannot be loaded", own);
  }
  status = ::gnutls_credentials_set(session_, GNUTLS_CRD_CERTIFICATE, certificates_);
  if (status != 0) return tls_failure(status, "no credentials", folder);
  // Sent as a name also where it is an address, GnuTLS knows better.
  status = ::gnutls_server_name_set(session_, GNUTLS_NAME_DNS, hostname_.data(), hostname_.size());
  if (status != 0) return tls_failure(status, "no name for the server to choose by", hostname_);
  if (options.verify_peer) {
    ::gnutls_session_set_verify_cert(session_, hostname_.c_str(), 0);
  }
  return {};
}

Result<void> TlsClient::use_psk(const TlsClientOptions& options) {
  SecretText file;
  TRY(read_psk_file(options.psk_file, file));
  const std::string user = options.user.empty() ? TRY(own_name()) : options.user;
  const auto hex = find_psk(file.text, user);
  if (!hex) {
    return fail(ErrorKind::kNotFound, "has no key of user \"{}\": say nbds://USER@HOST",
                printable(user, 200));
  }
  // GnuTLS copies it, and does not write to it.
  const gnutls_datum_t key{.data = reinterpret_cast<unsigned char*>(const_cast<char*>(hex->data())),
                           .size = static_cast<unsigned>(hex->size())};
  int status = ::gnutls_psk_allocate_client_credentials(&psk_);
  if (status == 0) {
    status = ::gnutls_psk_set_client_credentials(psk_, user.c_str(), &key, GNUTLS_PSK_KEY_HEX);
  }
  if (status == 0) status = ::gnutls_credentials_set(session_, GNUTLS_CRD_PSK, psk_);
  if (status == 0) return {};
  return fail(ErrorKind::kMalformed, "the key of user \"{}\" cannot be used: {}",
              printable(user, 200), ::gnutls_strerror(status));
}

Result<TlsClient::Outcome> TlsClient::handshake(TimedSocket& socket) {
  // GnuTLS reads records one by one and no further, so that the rest is the kernel's.
  ::gnutls_transport_set_int2(session_, socket.fd(), socket.fd());
  while (true) {
    const int status = ::gnutls_handshake(session_);
    if (status == 0) return Outcome::kDone;
    if (status == GNUTLS_E_AGAIN || status == GNUTLS_E_INTERRUPTED) {
      TRY(socket.wait(::gnutls_record_get_direction(session_) == 0 ? POLLIN : POLLOUT));
    } else if (::gnutls_error_is_fatal(status) != 0) {
      if (nothing_in_common(session_, status)) return Outcome::kNothingInCommon;
      return failed_handshake(status);
    }
  }
}

Failure TlsClient::failed_handshake(int status) const {
  if (status == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR) {
    (void)::gnutls_alert_send_appropriate(session_, status);
    return fail(ErrorKind::kDenied, "the server's certificate is refused: {}",
                verification_words(session_));
  }
  if (status == GNUTLS_E_FATAL_ALERT_RECEIVED) {
    const char* const name = ::gnutls_alert_get_name(::gnutls_alert_get(session_));
    return fail(ErrorKind::kDenied, "the server refuses the TLS handshake: {}",
                name == nullptr ? "it does not say why" : name);
  }
  (void)::gnutls_alert_send_appropriate(session_, status);
  return fail(ErrorKind::kDenied, "the {} handshake failed: {}", name_of(version_),
              ::gnutls_strerror(status));
}

Result<void> TlsClient::hand_over(int socket) {
  if (::gnutls_record_check_pending(session_) != 0) {
    return fail(ErrorKind::kMalformed, "the server spoke before it was asked");
  }
  TRY(hand_over(socket, KernelTlsDirection::kSend));
  return hand_over(socket, KernelTlsDirection::kReceive);
}

Result<void> TlsClient::hand_over(int socket, KernelTlsDirection direction) {
  gnutls_datum_t mac{};
  gnutls_datum_t iv{};
  gnutls_datum_t key{};  // all three are the session's
  std::array<unsigned char, 8> sequence{};
  const unsigned receive = direction == KernelTlsDirection::kReceive ? 1 : 0;
  const int status = ::gnutls_record_get_state(session_, receive, &mac, &iv, &key, sequence.data());
  if (status != 0) {
    return fail(ErrorKind::kUnsupported, "GnuTLS gives no keys away: {}",
                ::gnutls_strerror(status));
  }
  KernelTlsKey given;
  given.version = version_;
  given.key_bytes = key.size;
  const bool known_size = key.size == KernelTlsKey::kAes128 || key.size == KernelTlsKey::kAes256;
  const size_t salt = given.salt.size();
  bool copied = known_size && iv.size >= salt &&
                copy_exactly(key.data, key.size, MutableByteSpan(given.key).first(key.size)) &&
                copy_exactly(iv.data, salt, given.salt) &&
                copy_exactly(sequence.data(), sequence.size(), given.sequence);
  // TLS 1.2: GnuTLS counts nonces as records are counted, and so does the kernel from here on.
  copied = copied && (version_ == TlsVersion::k12
                          ? copy_exactly(sequence.data(), sequence.size(), given.nonce)
                          : copy_exactly(iv.data + salt, iv.size - salt, given.nonce));
  if (!copied) {
    return fail(ErrorKind::kUnsupported,
                "GnuTLS gives a key of {} and an IV of {} bytes, none of "
                "AES-GCM's",
                key.size, iv.size);
  }
  return set_kernel_tls_key(socket, direction, given);
}

}  // namespace underlay
