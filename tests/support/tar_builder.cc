#include "tests/support/tar_builder.h"

#include <fmt/format.h>

#include <array>
#include <cstring>

namespace underlay {

void put_text(MutableByteSpan bytes, size_t offset, std::string_view text) {
  std::memcpy(bytes.data() + offset, text.data(), text.size());
}

TarBuilder& TarBuilder::add(std::string_view name, std::string_view data, char typeflag,
                            const Change& change) {
  std::array<std::byte, 512> header{};
  put_text(header, 0, name.substr(0, 100));
  put_text(header, 100, "0000644");
  put_text(header, 124, fmt::format("{:011o}", data.size()));
  put_text(header, 148, "        ");
  header[156] = static_cast<std::byte>(typeflag);
  put_text(header, 257, std::string_view("ustar\00000", 8));
  if (change) change(header);
  uint32_t sum = 0;
  for (const std::byte byte : header) sum += std::to_integer<uint32_t>(byte);
  put_text(header, 148, std::string_view(fmt::format("{:06o}", sum) + '\0' + ' '));
  bytes_ += as_text(header);
  bytes_ += data;
  bytes_.resize((bytes_.size() + 511) / 512 * 512);
  return *this;
}

Bytes TarBuilder::build(size_t end_records) const {
  const ByteSpan bytes = as_bytes(bytes_);
  Bytes archive(bytes.begin(), bytes.end());
  archive.resize(archive.size() + end_records * 512);
  return archive;
}

std::string pax_record(std::string_view key, std::string_view value) {
  const size_t rest = key.size() + value.size() + 3;
  size_t length = rest + 1;
  while (fmt::format("{}", length).size() + rest != length) ++length;
  return fmt::format("{} {}={}\n", length, key, value);
}

}  // namespace underlay
