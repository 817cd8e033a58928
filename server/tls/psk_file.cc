#include "server/tls/psk_file.h"

#include <charconv>

namespace underlay {
namespace {

// RFC 4279, section 5.3: 64 bytes at least; nobody has longer ones than these.
constexpr size_t kMaxKeyBytes = 512;

Result<Secret> parse_key(std::string_view hex) {
  if (hex.empty() || hex.size() % 2 != 0 || hex.size() / 2 > kMaxKeyBytes) {
    return fail(ErrorKind::kMalformed, "a key has {} hexadecimal digits: 2 to {}, in pairs, may be",
                hex.size(), 2 * kMaxKeyBytes);
  }
  Secret key(hex.size() / 2);
  for (size_t i = 0; i < key.size(); ++i) {
    uint8_t byte = 0;
    const char* begin = hex.data() + 2 * i;
    const auto parsed = std::from_chars(begin, begin + 2, byte, 16);
    if (parsed.ec != std::errc() || parsed.ptr != begin + 2) {
      return fail(ErrorKind::kMalformed, "a key is not hexadecimal");
    }
    key.bytes()[i] = std::byte{byte};
  }
  return key;
}

}  // namespace

Result<PskFile> PskFile::load(const std::string& path) {
  const Secret text = TRY(read_secret({.id = "keys.psk", .path = path, .base64 = false}));
  auto parsed = parse(as_text(text.bytes()));
  if (!parsed) return in_file(std::move(parsed).error(), path);
  return parsed;
}

Result<PskFile> PskFile::parse(std::string_view text) {
  PskFile made;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    const size_t colon = line.rfind(':');
    if (line.starts_with('#') && colon != std::string_view::npos) {
      return fail(ErrorKind::kMalformed, "line {}: binary user names (#) are not supported",
                  number);
    }
    if (line.empty() || line.starts_with('#')) continue;
    if (colon == std::string_view::npos || colon == 0) {
      return fail(ErrorKind::kMalformed, "line {}: is not USER:KEY", number);
    }
    auto key = parse_key(line.substr(colon + 1));
    if (!key) return with_context(std::move(key).error(), fmt::format("line {}: ", number));
    // As GnuTLS does, the first line of a user counts.
    made.keys_.emplace(std::string(line.substr(0, colon)), *std::move(key));
  }
  if (made.keys_.empty()) return fail(ErrorKind::kMalformed, "holds no key");
  return made;
}

const Secret* PskFile::find(std::string_view user) const {
  const auto found = keys_.find(user);
  return found == keys_.end() ? nullptr : &found->second;
}

}  // namespace underlay
