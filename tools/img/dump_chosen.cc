#include "tools/img/dump_chosen.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "tools/common/interruption.h"

namespace underlay::img {
namespace {

Result<void> stop_when_interrupted() {
  if (is_interrupted()) return fail_errno(EINTR, "the dump was broken off");
  return {};
}

// "51 46 49 fb", with " ..." when not all are shown; "" when they do not lie in the file.
Result<std::string> bytes_in_hex(const Source& source, uint64_t offset, uint64_t length) {
  std::array<std::byte, ChosenDump::kMaxHexBytes> bytes{};
  const size_t count = static_cast<size_t>(std::min<uint64_t>(length, bytes.size()));
  if (!range_within(offset, count, source.size())) return "";
  TRY(source.read_at(offset, MutableByteSpan(bytes).first(count)));
  std::string text;
  for (const std::byte byte : ByteSpan(bytes).first(count)) {
    text += fmt::format("{}{:02x}", text.empty() ? "" : " ", std::to_integer<unsigned>(byte));
  }
  return count < length ? text + " ..." : text;
}

}  // namespace

bool ChosenDump::is_chosen(std::string_view structure) const {
  const auto matches = [name = std::string(structure)](const std::string& pattern) {
    return ::fnmatch(pattern.c_str(), name.c_str(), FNM_CASEFOLD) == 0;
  };
  return choice_.structures.empty() ||
         std::any_of(choice_.structures.begin(), choice_.structures.end(), matches);
}

bool ChosenDump::wants_fields(std::string_view name) const {
  return choice_.fields && is_chosen(name);
}

Result<void> ChosenDump::begin(std::string_view name, uint64_t offset, uint64_t length) {
  TRY(stop_when_interrupted());
  ++structures_;
  chosen_ = is_chosen(name);
  if (!chosen_) return {};
  found_ = true;
  print(DumpedStructure{.name = std::string(name), .offset = offset, .length = length});
  return {};
}

Result<void> ChosenDump::field(std::string_view name, uint64_t offset, uint64_t length,
                               const nlohmann::ordered_json& value, std::string_view meaning) {
  TRY(stop_when_interrupted());
  if (!chosen_ || !choice_.fields) return {};
  DumpedField field{.name = std::string(name),
                    .offset = offset,
                    .length = length,
                    .value = value,
                    .meaning = std::string(meaning)};
  if (choice_.hex) field.bytes = TRY(bytes_in_hex(source_, offset, length));
  print(std::move(field));
  return {};
}

}  // namespace underlay::img
