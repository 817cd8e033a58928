#include "io/nbd_tls_address.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>

#include "io/nbd_negotiation.h"

namespace underlay {
namespace {

constexpr std::string_view kScheme = "nbds://";
constexpr std::string_view kDefaultPort = "10809";

Failure usage(std::string_view what) {
  return fail(ErrorKind::kUsage, "no address of an NBD export: {}", what);
}

// RFC 3986, "Percent-Encoding".
Result<std::string> decode(std::string_view text) {
  std::string decoded;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '%') {
      decoded += text[at];
      continue;
    }
    const std::string_view digits = text.substr(at + 1, 2);
    uint8_t byte = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (digits.size() != 2 || error != std::errc() || end != digits.data() + 2 || byte == 0) {
      return usage("% must be followed by two hexadecimal digits, not 00");
    }
    decoded += static_cast<char>(byte);
    at += 2;
  }
  return decoded;
}

Result<void> check_port(std::string_view port) {
  uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error == std::errc() && end == port.data() + port.size() && number != 0) return {};
  return fail(ErrorKind::kUsage, "no address of an NBD export: port \"{}\" is none of 1 to 65535",
              printable(port, 40));
}

// "HOST", "HOST:PORT", "[IPV6]" or "[IPV6]:PORT".
Result<void> read_server(std::string_view text, NbdTlsAddress& address) {
  std::string_view host = text.substr(0, text.find(':'));
  std::string_view rest = text.substr(host.size());
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return usage("[ without ]");
    host = text.substr(1, end - 1);
    rest = text.substr(end + 1);
    if (!rest.empty() && !rest.starts_with(':')) return usage("] must be followed by : or /");
  }
  if (rest.starts_with(':')) rest.remove_prefix(1);
  address.host = TRY(decode(host));
  if (address.host.empty()) return usage("it names no host");
  address.port = rest.empty() ? kDefaultPort : rest;
  return check_port(address.port);
}

Result<bool> truth(std::string_view key, std::string_view value) {
  for (const std::string_view yes : {"true", "yes", "on", "1"}) {
    if (value == yes) return true;
  }
  for (const std::string_view no : {"false", "no", "off", "0"}) {
    if (value == no) return false;
  }
  return fail(ErrorKind::kUsage, "{}={}: true or false", key, printable(value, 40));
}

Result<std::string> absolute(std::string_view key, std::string path) {
  if (path.starts_with('/')) return path;
  return fail(ErrorKind::kUsage,
              "{}={}: must be an absolute path, because connections that are lost are made again "
              "by a program that runs elsewhere",
              key, printable(path, 200));
}

Result<void> read_key(std::string_view key, std::string value, TlsClientOptions& tls) {
  if (key == "tls-certificates") {
    tls.certificates = TRY(absolute(key, std::move(value)));
  } else if (key == "tls-psk-file") {
    tls.psk_file = TRY(absolute(key, std::move(value)));
  } else if (key == "tls-username") {
    tls.user = std::move(value);
  } else if (key == "tls-hostname") {
    tls.hostname = std::move(value);
  } else if (key == "tls-verify-peer") {
    tls.verify_peer = TRY(truth(key, value));
  } else {
    return fail(ErrorKind::kUsage,
                "\"{}\" is no key of an nbds:// address: they are tls-certificates, tls-psk-file, "
                "tls-username, tls-hostname and tls-verify-peer",
                printable(key, 80));
  }
  return {};
}

Result<void> read_query(std::string_view query, TlsClientOptions& tls) {
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    const size_t equals = pair.find('=');
    if (equals == std::string_view::npos) return usage("behind ? there must be KEY=VALUE&...");
    const std::string key = TRY(decode(pair.substr(0, equals)));
    std::string value = TRY(decode(pair.substr(equals + 1)));
    TRY(read_key(key, std::move(value), tls));
  }
  if (!tls.certificates.empty() && !tls.psk_file.empty()) {
    return fail(ErrorKind::kUsage, "tls-certificates and tls-psk-file exclude each other");
  }
  return {};
}

}  // namespace

Result<NbdTlsAddress> parse_nbd_tls_address(std::string_view uri) {
  if (!uri.starts_with(kScheme)) return usage("it must begin with nbds://");
  if (uri.find('#') != std::string_view::npos) return usage("# must be written as %23");
  uri.remove_prefix(kScheme.size());
  const size_t question = std::min(uri.find('?'), uri.size());
  const std::string_view query = uri.substr(std::min(question + 1, uri.size()));
  const std::string_view place = uri.substr(0, question);
  std::string_view server = place.substr(0, place.find('/'));
  const std::string_view path = place.substr(server.size());
  NbdTlsAddress address;
  if (const size_t at = server.rfind('@'); at != std::string_view::npos) {
    address.tls.user = TRY(decode(server.substr(0, at)));
    server.remove_prefix(at + 1);
  }
  TRY(read_server(server, address));
  address.export_name = TRY(decode(path.substr(std::min<size_t>(1, path.size()))));
  if (address.export_name.size() > kMaxExportName) {
    return fail(ErrorKind::kUsage, "the export's name has {} bytes, and at most {} may be",
                address.export_name.size(), kMaxExportName);
  }
  TRY(read_query(query, address.tls));
  if (address.tls.hostname.empty()) address.tls.hostname = address.host;
  return address;
}

}  // namespace underlay
