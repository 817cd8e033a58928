#include "server/tls/tls_object.h"

#include <functional>

#include "formats/comma_list.h"

namespace underlay {
namespace {

constexpr std::string_view kX509 = "tls-creds-x509";
constexpr std::string_view kPsk = "tls-creds-psk";

std::string_view type_of(std::string_view word) { return word.substr(0, word.find(',')); }

// Calls `take` with each KEY and VALUE behind the type.
Result<void> each_field(
    std::string_view option, std::string_view word,
    const std::function<Result<void>(std::string_view, const std::string&)>& take) {
  const std::vector<std::string> parts = split_at_commas(word);
  for (size_t i = 1; i < parts.size(); ++i) {
    const size_t equals = parts[i].find('=');
    if (equals == std::string::npos) {
      return fail(ErrorKind::kUsage, "{}: {}: \"{}\" is not KEY=VALUE", option, parts[0],
                  printable(parts[i], 80));
    }
    TRY(take(std::string_view(parts[i]).substr(0, equals), parts[i].substr(equals + 1)));
  }
  return {};
}

Failure unknown_field(std::string_view option, std::string_view word, std::string_view key) {
  return fail(ErrorKind::kUnsupported, "{}: {} has no \"{}\" here", option, type_of(word),
              printable(key, 80));
}

Failure bad_value(std::string_view option, std::string_view key, std::string_view value,
                  std::string_view known) {
  return fail(ErrorKind::kUsage, "{}: {}=\"{}\" is not {}", option, key, printable(value, 80),
              known);
}

Result<void> take_endpoint(std::string_view option, const std::string& value, TlsObject& object) {
  if (value != "client" && value != "server") {
    return bad_value(option, "endpoint", value, "client or server");
  }
  object.endpoint = value == "server" ? TlsObject::Endpoint::kServer : TlsObject::Endpoint::kClient;
  return {};
}

Result<void> take_verify_peer(std::string_view option, const std::string& value,
                              TlsObject& object) {
  for (const std::string_view yes : {"yes", "on", "true"}) {
    if (value == yes) return object.verify_peer = true, Result<void>();
  }
  for (const std::string_view no : {"no", "off", "false"}) {
    if (value == no) return object.verify_peer = false, Result<void>();
  }
  return bad_value(option, "verify-peer", value, "yes or no");
}

}  // namespace

bool is_tls_object(std::string_view word) { return type_of(word).starts_with("tls-creds-"); }

bool is_authz_object(std::string_view word) { return type_of(word).starts_with("authz-"); }

Result<TlsObject> parse_tls_object(std::string_view option, std::string_view word) {
  const std::string_view type = type_of(word);
  if (type != kX509 && type != kPsk) {
    return fail(ErrorKind::kUnsupported, "{}: {} is not supported: only {} and {} are", option,
                printable(type, 80), kX509, kPsk);
  }
  TlsObject object;
  object.kind = type == kX509 ? TlsObject::Kind::kX509 : TlsObject::Kind::kPsk;
  const bool x509 = object.kind == TlsObject::Kind::kX509;
  TRY(each_field(option, word, [&](std::string_view key, const std::string& value) -> Result<void> {
    if (key == "endpoint") return take_endpoint(option, value, object);
    if (key == "verify-peer" && x509) return take_verify_peer(option, value, object);
    if (key == "id") return object.id = value, Result<void>();
    if (key == "dir") return object.folder = value, Result<void>();
    if (key == "priority") return object.priority = value, Result<void>();
    if (key == "passwordid" && x509) return object.password_id = value, Result<void>();
    if (key == "username" && !x509) return object.user = value, Result<void>();
    return unknown_field(option, word, key);
  }));
  if (object.id.empty()) return fail(ErrorKind::kUsage, "{}: {} needs an id", option, type);
  if (object.folder.empty()) {
    return fail(ErrorKind::kUsage, "{}: {} needs dir=FOLDER, where the credentials are", option,
                type);
  }
  return object;
}

Result<AuthzObject> parse_authz_object(std::string_view option, std::string_view word) {
  const std::string_view type = type_of(word);
  const bool simple = type == "authz-simple";
  if (!simple && type != "authz-list-file") {
    return fail(ErrorKind::kUnsupported,
                "{}: {} is not supported: only authz-simple and authz-list-file are", option,
                printable(type, 80));
  }
  AuthzObject object;
  TRY(each_field(option, word, [&](std::string_view key, const std::string& value) -> Result<void> {
    if (key == "id") return object.id = value, Result<void>();
    if (key == "identity" && simple) return object.identity = value, Result<void>();
    if (key == "filename" && !simple) return object.list_file = value, Result<void>();
    return unknown_field(option, word, key);
  }));
  if (object.id.empty()) return fail(ErrorKind::kUsage, "{}: {} needs an id", option, type);
  if (object.identity.empty() && object.list_file.empty()) {
    return fail(ErrorKind::kUsage, "{}: {} needs {}", option, type,
                simple ? "identity=DISTINGUISHED-NAME" : "filename=FILE");
  }
  return object;
}

}  // namespace underlay
