#include "tools/common/text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "io/bytes.h"

namespace underlay {
namespace {

constexpr uint64_t kStep = 1024;

}  // namespace

std::string human_size(uint64_t bytes) {
  constexpr std::array kUnits{"B", "K", "M", "G", "T", "P", "E"};
  size_t unit = 0;
  double value = static_cast<double>(bytes);
  while (value >= static_cast<double>(kStep) && unit + 1 < kUnits.size()) {
    value /= static_cast<double>(kStep);
    ++unit;
  }
  const double tenths = std::round(value * 10);
  return std::fmod(tenths, 10) == 0 ? fmt::format("{:.0f}{}", value, kUnits[unit])
                                    : fmt::format("{:.1f}{}", value, kUnits[unit]);
}

Result<uint64_t> parse_size(const std::string& text, const std::string& option) {
  constexpr std::string_view kSuffixes = "KMGT";
  uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  const auto refuse = [&]() {
    return fail(ErrorKind::kUsage, "{} '{}': a number of bytes, or one with K, M, G or T behind it",
                option, printable(text, 80));
  };
  if (error != std::errc() || end - rest > 1) return refuse();
  if (rest == end) return number;
  const size_t power = kSuffixes.find(static_cast<char>(std::toupper(*rest)));
  if (power == std::string_view::npos) return refuse();
  for (size_t i = 0; i <= power; ++i) {
    const auto product = checked_mul(number, kStep);
    if (!product) return refuse();
    number = *product;
  }
  return number;
}

std::string aligned(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      text += i + 1 == row.size() ? row[i] : fmt::format("{:<{}}  ", row[i], widths[i]);
    }
    text += '\n';
  }
  return text;
}

}  // namespace underlay
