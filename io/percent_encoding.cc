#include "io/percent_encoding.h"

#include <fmt/format.h>

namespace underlay {

std::string percent_encoded(std::string_view text, std::string_view keep) {
  constexpr std::string_view kUnreserved =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  std::string encoded;
  for (const char letter : text) {
    if (kUnreserved.find(letter) != kUnreserved.npos || keep.find(letter) != keep.npos) {
      encoded += letter;
    } else {
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(letter));
    }
  }
  return encoded;
}

}  // namespace underlay
