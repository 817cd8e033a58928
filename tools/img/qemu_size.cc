#include "tools/img/qemu_size.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <cstdlib>

namespace underlay::img {
namespace {

constexpr std::string_view kUnits = "bkMGTPE";

}  // namespace

std::string qemu_size(uint64_t bytes) {
  constexpr std::array kNames{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  // QEMU's rule: the unit changes when a thousand of the smaller one is reached.
  int exponent = 0;
  (void)std::frexp(static_cast<double>(bytes) / (1000.0 / 1024.0), &exponent);
  const int unit = bytes == 0 ? 0 : (exponent - 1) / 10;
  return fmt::format("{:.3g} {}", std::ldexp(static_cast<double>(bytes), -10 * unit),
                     kNames[static_cast<size_t>(unit)]);
}

Result<uint64_t> parse_qemu_size(std::string_view option, const std::string& text) {
  const auto refuse = [&]() {
    return fail(ErrorKind::kUsage,
                "{}: \"{}\" is no size: a number with an optional suffix k, M, G, T, P or E",
                option, printable(text, 80));
  };
  if (text.empty() || text[0] < '0' || text[0] > '9') return refuse();
  const size_t digits = text.find_first_not_of("0123456789.xXabcdefABCDEF");
  std::string number = text;
  int shift = 0;
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  if (!hex) {
    const size_t at = text.find_first_not_of("0123456789.");
    if (at != std::string::npos) {
      if (at + 1 != text.size()) return refuse();
      char unit = text[at];
      if (unit == 'B') unit = 'b';
      if (unit == 'K') unit = 'k';
      if (unit >= 'a' && unit <= 'z' && unit != 'b' && unit != 'k') {
        unit = static_cast<char>(unit - 'a' + 'A');
      }
      const size_t power = kUnits.find(unit);
      if (power == std::string_view::npos) return refuse();
      shift = static_cast<int>(power) * 10;
      number.resize(at);
    }
  } else if (digits != std::string::npos) {
    return refuse();
  }
  char* end = nullptr;
  if (number.find('.') == std::string::npos) {
    errno = 0;
    const unsigned long long whole = std::strtoull(number.c_str(), &end, hex ? 16 : 10);
    if (errno != 0 || *end != '\0' || whole > (UINT64_MAX >> shift)) return refuse();
    return uint64_t{whole} << shift;
  }
  const double value = std::ldexp(std::strtod(number.c_str(), &end), shift);
  if (*end != '\0' || !(value < 0x1p64)) return refuse();
  return static_cast<uint64_t>(value);
}

}  // namespace underlay::img
