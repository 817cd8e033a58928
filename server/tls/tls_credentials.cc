#include "server/tls/tls_credentials.h"

#include <gnutls/x509.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "io/gnutls_on_demand.h"

namespace underlay {
namespace {

// What is older than TLS 1.2 has no safe use.
constexpr const char* kPriority = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";
constexpr std::string_view kPskAddition = ":+ECDHE-PSK:+DHE-PSK:+PSK";

Failure tls_failure(int status, std::string_view what, const std::string& file) {
  return in_file(fail(ErrorKind::kMalformed, "{}: {}", what, ::gnutls_strerror(status)), file);
}

// The file that must be, or may be, in the folder. "" when it may be missing and is.
Result<std::string> find_file(const TlsObject& object, const char* name, bool needed) {
  std::string path = object.folder + "/" + name;
  struct stat found {};
  if (::stat(path.c_str(), &found) == 0) return path;
  if (errno == ENOENT && !needed) return std::string();
  return in_file(
      fail_errno(errno, "TLS credentials \"{}\" need this file", printable(object.id, 80)), path);
}

struct ReleaseCertificate {
  void operator()(gnutls_x509_crt_t certificate) const { ::gnutls_x509_crt_deinit(certificate); }
};
using Certificate = std::unique_ptr<gnutls_x509_crt_int, ReleaseCertificate>;

Result<Certificate> read_certificate(const gnutls_datum_t& der) {
  gnutls_x509_crt_t certificate = nullptr;
  int status = ::gnutls_x509_crt_init(&certificate);
  Certificate owner(certificate);
  if (status == 0) status = ::gnutls_x509_crt_import(certificate, &der, GNUTLS_X509_FMT_DER);
  if (status == 0) return owner;
  return fail(ErrorKind::kMalformed, "a certificate cannot be read: {}", ::gnutls_strerror(status));
}

// Of the certificate and those that signed it.
Result<void> check_time(gnutls_certificate_credentials_t credentials) {
  const std::time_t now = std::time(nullptr);
  gnutls_datum_t der{};
  for (unsigned i = 0; ::gnutls_certificate_get_crt_raw(credentials, 0, i, &der) == 0; ++i) {
    const Certificate certificate = TRY(read_certificate(der));
    if (::gnutls_x509_crt_get_expiration_time(certificate.get()) < now) {
      return fail(ErrorKind::kDenied, "the certificate has expired");
    }
    if (::gnutls_x509_crt_get_activation_time(certificate.get()) > now) {
      return fail(ErrorKind::kDenied, "the certificate is not valid yet");
    }
  }
  return {};
}

Result<Secret> read_password(const TlsObject& object, std::span<const SecretFile> secrets) {
  const SecretFile file = TRY(find_secret("passwordid", object.password_id, secrets));
  Secret password = TRY(read_secret(file));
  const bool has_nul = std::ranges::find(password.bytes(), std::byte{0}) != password.bytes().end();
  if (!has_nul) return password;
  return fail(ErrorKind::kUsage, "secret \"{}\": a password has no NUL",
              printable(object.password_id, 80));
}

// Wipes what GnuTLS wants with a NUL behind it.
struct Password {
  explicit Password(ByteSpan bytes) : text(as_text(bytes)) {}
  Password(const Password&) = delete;
  Password& operator=(const Password&) = delete;
  ~Password() { ::explicit_bzero(text.data(), text.size()); }
  std::string text;
};

Result<void> load_key(gnutls_certificate_credentials_t credentials, const TlsObject& object,
                      std::span<const SecretFile> secrets) {
  const std::string certificate = TRY(find_file(object, "server-cert.pem", true));
  const std::string key = TRY(find_file(object, "server-key.pem", true));
  int status = 0;
  if (object.password_id.empty()) {
    status = ::gnutls_certificate_set_x509_key_file2(credentials, certificate.c_str(), key.c_str(),
                                                     GNUTLS_X509_FMT_PEM, nullptr, 0);
  } else {
    const Secret secret = TRY(read_password(object, secrets));
    const Password password(secret.bytes());
    status = ::gnutls_certificate_set_x509_key_file2(credentials, certificate.c_str(), key.c_str(),
                                                     GNUTLS_X509_FMT_PEM, password.text.c_str(), 0);
  }
  if (status < 0) return tls_failure(status, "certificate and key cannot be loaded", certificate);
  auto in_time = check_time(credentials);
  if (!in_time) return in_file(std::move(in_time).error(), certificate);
  return {};
}

}  // namespace

Result<std::shared_ptr<const TlsCredentials>> TlsCredentials::load(
    const TlsObject& object, std::span<const SecretFile> secrets,
    std::optional<Authorization> authorization) {
  if (!load_gnutls()) {
    return fail(ErrorKind::kUnsupported,
                "TLS: libgnutls.so.30 cannot be loaded: install the package libgnutls30");
  }
  std::shared_ptr<TlsCredentials> made(new TlsCredentials());
  made->authorization_ = std::move(authorization);
  if (object.kind == TlsObject::Kind::kX509) {
    TRY(made->load_x509(object, secrets));
  } else {
    TRY(made->load_psk(object));
  }
  TRY(made->read_priority(object));
  return made;
}

TlsCredentials::~TlsCredentials() {
  if (x509_ != nullptr) ::gnutls_certificate_free_credentials(x509_);
  if (psk_ != nullptr) ::gnutls_psk_free_server_credentials(psk_);
  if (priority_ != nullptr) ::gnutls_priority_deinit(priority_);
}

Result<void> TlsCredentials::load_x509(const TlsObject& object,
                                       std::span<const SecretFile> secrets) {
  verify_peer_ = object.verify_peer;
  if (const int status = ::gnutls_certificate_allocate_credentials(&x509_); status != 0) {
    return tls_failure(status, "no credentials", object.folder);
  }
  const std::string authority = TRY(find_file(object, "ca-cert.pem", verify_peer_));
  if (!authority.empty()) {
    const int count =
        ::gnutls_certificate_set_x509_trust_file(x509_, authority.c_str(), GNUTLS_X509_FMT_PEM);
    if (count < 0) return tls_failure(count, "cannot be loaded", authority);
    if (count == 0) return in_file(fail(ErrorKind::kMalformed, "holds no certificate"), authority);
  }
  const std::string revoked = TRY(find_file(object, "ca-crl.pem", false));
  if (!revoked.empty()) {
    const int count =
        ::gnutls_certificate_set_x509_crl_file(x509_, revoked.c_str(), GNUTLS_X509_FMT_PEM);
    if (count < 0) return tls_failure(count, "cannot be loaded", revoked);
  }
  return load_key(x509_, object, secrets);
}

Result<void> TlsCredentials::load_psk(const TlsObject& object) {
  if (const int status = ::gnutls_psk_allocate_server_credentials(&psk_); status != 0) {
    return tls_failure(status, "no credentials", object.folder);
  }
  const std::string keys = TRY(find_file(object, "keys.psk", true));
  keys_.emplace(TRY(PskFile::load(keys)));
  ::gnutls_psk_set_server_credentials_function(psk_, find_key);
  return {};
}

// GnuTLS frees the copy.
int TlsCredentials::find_key(gnutls_session_t session, const char* user, gnutls_datum_t* key) {
  const auto& credentials = *static_cast<const TlsCredentials*>(::gnutls_session_get_ptr(session));
  const Secret* const found = credentials.keys_->find(user);
  if (found == nullptr) return -1;
  key->data = static_cast<unsigned char*>(std::malloc(found->size()));
  if (key->data == nullptr) return -1;
  std::memcpy(key->data, found->bytes().data(), found->size());
  key->size = static_cast<unsigned>(found->size());
  return 0;
}

Result<void> TlsCredentials::read_priority(const TlsObject& object) {
  std::string text = object.priority.empty() ? kPriority : object.priority;
  if (object.kind == TlsObject::Kind::kPsk) text += kPskAddition;
  const int status = ::gnutls_priority_init(&priority_, text.c_str(), nullptr);
  if (status == 0) return {};
  return fail(ErrorKind::kUsage, "TLS credentials \"{}\": GnuTLS does not take the priority \"{}\"",
              printable(object.id, 80), printable(text, 200));
}

int TlsCredentials::apply(gnutls_session_t session) const {
  if (const int status = ::gnutls_priority_set(session, priority_); status != 0) return status;
  ::gnutls_session_set_ptr(session, const_cast<TlsCredentials*>(this));  // for find_key()
  if (psk_ != nullptr) return ::gnutls_credentials_set(session, GNUTLS_CRD_PSK, psk_);
  if (const int status = ::gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, x509_);
      status != 0) {
    return status;
  }
  if (!verify_peer_) return 0;
  ::gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
  // The session keeps the pointer. GnuTLS changes nothing behind it.
  static gnutls_typed_vdata_st purpose{
      .type = GNUTLS_DT_KEY_PURPOSE_OID,
      .data = reinterpret_cast<unsigned char*>(const_cast<char*>(GNUTLS_KP_TLS_WWW_CLIENT)),
      .size = 0};
  ::gnutls_session_set_verify_cert2(session, &purpose, 1, 0);
  return 0;
}

Result<void> TlsCredentials::authorize(gnutls_session_t session) const {
  if (!authorization_) return {};
  unsigned count = 0;
  const gnutls_datum_t* certificates = ::gnutls_certificate_get_peers(session, &count);
  if (certificates == nullptr || count == 0) {
    return fail(ErrorKind::kDenied, "the client showed no certificate");
  }
  const Certificate certificate = TRY(read_certificate(*certificates));
  // The name in the order that qemu compares, not RFC 4514's.
  std::array<char, 1024> name{};
  size_t size = name.size();
  const int status = ::gnutls_x509_crt_get_dn(certificate.get(), name.data(), &size);
  if (status != 0) {
    return fail(ErrorKind::kDenied, "the name in the client's certificate cannot be read: {}",
                ::gnutls_strerror(status));
  }
  const std::string identity(name.data(), size);
  if (authorization_->allows(identity)) return {};
  return fail(ErrorKind::kDenied, "\"{}\" is not allowed to connect (--tls-authz)",
              printable(identity, 200));
}

}  // namespace underlay
