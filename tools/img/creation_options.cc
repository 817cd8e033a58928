#include "tools/img/creation_options.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "formats/comma_list.h"
#include "tools/img/qemu_size.h"

namespace underlay::img {
namespace {

using Type = CreationKey::Type;

Result<uint64_t> parse_switch(std::string_view key, std::string_view text) {
  constexpr std::array<std::string_view, 4> kOnWords{"on", "yes", "true", "y"};
  constexpr std::array<std::string_view, 4> kOffWords{"off", "no", "false", "n"};
  if (std::ranges::find(kOnWords, text) != kOnWords.end()) return 1;
  if (std::ranges::find(kOffWords, text) != kOffWords.end()) return 0;
  return fail(ErrorKind::kUsage, "-o {}: must be on or off, not \"{}\"", key, printable(text, 80));
}

Result<uint64_t> parse_number(std::string_view key, std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size()) return number;
  return fail(ErrorKind::kUsage, "-o {}: must be a number, not \"{}\"", key, printable(text, 80));
}

Result<uint64_t> number_of(const CreationKey& key, const std::string& text) {
  switch (key.type) {
    case Type::kSwitch:
      return parse_switch(key.name, text);
    case Type::kSize:
      return parse_qemu_size(fmt::format("-o {}", key.name), text);
    case Type::kNumber:
      return parse_number(key.name, text);
    case Type::kText:
      break;
  }
  return 0;
}

}  // namespace

Result<CreationOptions> CreationOptions::parse(const std::vector<std::string>& given,
                                               std::string_view format,
                                               std::span<const CreationKey> keys) {
  CreationOptions options;
  for (const std::string& list : given) {
    for (const std::string& part : split_at_commas(list)) TRY(options.add(part, format, keys));
  }
  return options;
}

Result<void> CreationOptions::add(const std::string& part, std::string_view format,
                                  std::span<const CreationKey> keys) {
  const size_t equals = part.find('=');
  const std::string name = part.substr(0, equals);
  const auto key = std::ranges::find(keys, name, &CreationKey::name);
  if (key == keys.end()) {
    return fail(ErrorKind::kUsage, "-o: \"{}\" is no option of the format {}", printable(name, 80),
                format);
  }
  Value value;
  // A switch alone is on.
  value.text = equals != std::string::npos ? part.substr(equals + 1) : "on";
  value.number = TRY(number_of(*key, value.text));
  values_.insert_or_assign(name, std::move(value));
  return {};
}

std::string CreationOptions::text(std::string_view key, std::string_view otherwise) const {
  const auto found = values_.find(key);
  return found == values_.end() ? std::string(otherwise) : found->second.text;
}

bool CreationOptions::is_on(std::string_view key) const { return number(key, 0) != 0; }

uint64_t CreationOptions::number(std::string_view key, uint64_t otherwise) const {
  const auto found = values_.find(key);
  return found == values_.end() ? otherwise : found->second.number;
}

}  // namespace underlay::img
