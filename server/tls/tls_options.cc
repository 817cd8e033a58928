#include "server/tls/tls_options.h"

#include "formats/options/option_values.h"

namespace underlay {
namespace {

// The object that `option` calls `id`; `is_one` and `parse` belong to its type.
template <class Object>
Result<Object> find_object(const GivenOptions& given, std::string_view option,
                           const std::string& id, bool (*is_one)(std::string_view),
                           Result<Object> (*parse)(std::string_view, std::string_view)) {
  std::optional<Object> found;
  for (const std::string& word : given.each("object")) {
    if (!is_one(word)) continue;
    Object object = TRY(parse("--object", word));
    if (object.id != id) continue;
    if (found) {
      return fail(ErrorKind::kUsage, "--object: two have the id \"{}\"", printable(id, 80));
    }
    found = std::move(object);
  }
  if (found) return *std::move(found);
  return fail(ErrorKind::kUsage, "{}: there is no --object with id={} of that kind", option,
              printable(id, 80));
}

Result<void> read_credentials(const GivenOptions& given, TlsObject::Endpoint endpoint,
                              Options& options) {
  if (!given.has("tls-creds")) return {};
  TlsObject object = TRY(find_object<TlsObject>(given, "--tls-creds", given.last("tls-creds"),
                                                is_tls_object, parse_tls_object));
  if (object.endpoint != endpoint) {
    return fail(ErrorKind::kUsage, "--tls-creds: the credentials must say endpoint={}",
                endpoint == TlsObject::Endpoint::kServer ? "server" : "client");
  }
  options.tls_creds = std::move(object);
  return {};
}

Result<void> read_mode(const GivenOptions& given, Options& options) {
  const std::string mode = given.last_or("tls", options.tls_creds ? "require" : "off");
  TRY(check_one_of("--tls", mode, {"off", "on", "require"}));
  options.tls = mode == "off" ? TlsMode::kOff : mode == "on" ? TlsMode::kOffer : TlsMode::kRequire;
  if (options.tls == TlsMode::kOff || options.tls_creds) return {};
  return fail(ErrorKind::kUsage, "--tls={} needs --tls-creds", mode);
}

}  // namespace

Result<void> read_tls(const GivenOptions& given, Options& options) {
  TRY(read_credentials(given, TlsObject::Endpoint::kServer, options));
  TRY(read_mode(given, options));
  // The only client of -c is the kernel, on a socket of our own.
  if (given.has("connect") && options.tls != TlsMode::kOff) {
    return fail(ErrorKind::kUsage, "-c and --tls-creds: the kernel's nbd client does not encrypt");
  }
  if (!given.has("tls-authz")) return {};
  if (options.tls == TlsMode::kOffer) {
    return fail(ErrorKind::kUsage,
                "--tls-authz and --tls=on: who does not encrypt would not be asked");
  }
  const bool by_certificate =
      options.tls_creds && options.tls_creds->kind == TlsObject::Kind::kX509;
  if (!by_certificate || !options.tls_creds->verify_peer) {
    return fail(ErrorKind::kUsage,
                "--tls-authz is about the names in certificates: it needs tls-creds-x509 with "
                "verify-peer=yes");
  }
  options.tls_authz = TRY(find_object<AuthzObject>(given, "--tls-authz", given.last("tls-authz"),
                                                   is_authz_object, parse_authz_object));
  return {};
}

Result<void> read_tls_of_client(const GivenOptions& given, Options& options) {
  TRY(read_credentials(given, TlsObject::Endpoint::kClient, options));
  if (options.tls_creds &&
      !(options.tls_creds->priority.empty() && options.tls_creds->password_id.empty())) {
    return fail(ErrorKind::kUnsupported, "-L: credentials with priority= or passwordid=");
  }
  for (const char* name : {"tls", "tls-authz"}) {
    if (given.has(name)) return fail(ErrorKind::kUsage, "--{} is about a server, not -L", name);
  }
  return {};
}

}  // namespace underlay
