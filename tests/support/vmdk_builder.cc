#include "tests/support/vmdk_builder.h"

#include <zlib.h>

#include <algorithm>
#include <random>
#include <stdexcept>

#include "io/store_le.h"

namespace underlay::vmdk_test {
namespace {

constexpr uint64_t kSector = 512;
constexpr uint64_t kEntries = 512;
constexpr uint64_t kStreamOverhead = 16;  // sectors in front of the first compressed grain

bool is_zero(ByteSpan bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

void append(std::vector<std::byte>& out, ByteSpan bytes, uint64_t unit = kSector) {
  out.insert(out.end(), bytes.begin(), bytes.end());
  out.resize(*round_up(out.size(), unit));
}

void append_marker(std::vector<std::byte>& out, uint64_t value, uint32_t type) {
  std::vector<std::byte> marker(kSector);
  store_le<uint64_t>(marker, 0, value);
  store_le<uint32_t>(marker, 12, type);
  append(out, marker);
}

std::vector<std::byte> compressed_grain(ByteSpan grain, uint64_t lba, size_t grain_bytes) {
  std::vector<std::byte> whole(grain.begin(), grain.end());
  whole.resize(grain_bytes);
  uLongf size = compressBound(static_cast<uLong>(whole.size()));
  std::vector<std::byte> stored(12 + size);
  if (compress(reinterpret_cast<Bytef*>(stored.data() + 12), &size,
               reinterpret_cast<const Bytef*>(whole.data()),
               static_cast<uLong>(whole.size())) != Z_OK) {
    throw std::runtime_error("zlib does not compress");
  }
  stored.resize(12 + size);
  store_le<uint64_t>(stored, 0, lba);
  store_le<uint32_t>(stored, 8, static_cast<uint32_t>(size));
  return stored;
}

class Builder {
 public:
  Builder(ByteSpan content, const VmdkSpec& spec) : content_(content), spec_(spec) {
    if (spec_.capacity == 0) spec_.capacity = content.size() / kSector;
    grain_bytes_ = spec_.grain_size * kSector;
    tables_ = div_round_up(spec_.capacity, spec_.grain_size * kEntries);
    entries_.resize(tables_ * kEntries);
    built_.grain_size = spec_.grain_size;
  }

  BuiltVmdk build() {
    built_.bytes = header(0, 0);
    append(built_.bytes, as_bytes(spec_.descriptor));
    return spec_.compressed ? build_stream() : build_plain();
  }

 private:
  std::vector<std::byte> header(uint64_t directory_sector, uint64_t overhead) const {
    std::vector<std::byte> h(kSector);
    std::copy_n(as_bytes("KDMV").begin(), 4, h.begin());
    store_le<uint32_t>(h, 4, spec_.compressed ? 3 : 1);
    store_le<uint32_t>(h, 8,
                       1u | (spec_.redundant ? 2u : 0u) | (spec_.zeroed ? 4u : 0u) |
                           (spec_.compressed ? 3u << 16 : 0u));
    store_le<uint64_t>(h, 12, spec_.capacity);
    store_le<uint64_t>(h, 20, spec_.grain_size);
    store_le<uint64_t>(h, 28, spec_.descriptor.empty() ? 0u : 1u);
    store_le<uint64_t>(h, 36, div_round_up(spec_.descriptor.size(), kSector));
    store_le<uint32_t>(h, 44, kEntries);
    store_le<uint64_t>(h, 48, built_.redundant_directory / kSector);
    store_le<uint64_t>(h, 56, directory_sector);
    store_le<uint64_t>(h, 64, overhead);
    std::copy_n(as_bytes("\n \r\n").begin(), 4, h.begin() + 73);
    store_le<uint16_t>(h, 77, spec_.compressed ? 1 : 0);
    return h;
  }

  void finish_header(uint64_t directory_sector, uint64_t overhead) {
    const auto h = header(directory_sector, overhead);
    std::copy(h.begin(), h.end(), built_.bytes.begin());
  }

  uint32_t here() const { return static_cast<uint32_t>(built_.bytes.size() / kSector); }

  void append_grains() {
    for (uint64_t i = 0; i * grain_bytes_ < content_.size(); ++i) {
      const uint64_t start = i * grain_bytes_;
      const ByteSpan grain =
          content_.subspan(start, std::min(grain_bytes_, content_.size() - start));
      if (is_zero(grain)) {
        entries_[i] = spec_.zeroed ? 1 : 0;
      } else if (spec_.compressed) {
        entries_[i] = here();
        append(built_.bytes, compressed_grain(grain, i * spec_.grain_size, grain_bytes_));
      } else {
        entries_[i] = here();
        append(built_.bytes, grain, grain_bytes_);
      }
    }
  }

  bool table_is_used(uint64_t table) const {
    const auto first = entries_.begin() + static_cast<std::ptrdiff_t>(table * kEntries);
    return std::any_of(first, first + kEntries, [](uint32_t entry) { return entry != 0; });
  }

  void store_tables(uint64_t directory, const std::vector<uint64_t>& places) {
    for (uint64_t table = 0; table < tables_; ++table) {
      const uint64_t offset = places[table];
      store_le<uint32_t>(built_.bytes, directory + 4 * table,
                         static_cast<uint32_t>(offset / kSector));
      for (uint64_t i = 0; offset != 0 && i < kEntries; ++i) {
        store_le<uint32_t>(built_.bytes, offset + 4 * i, entries_[table * kEntries + i]);
      }
    }
  }

  // A directory and room for all its tables at the end.
  uint64_t append_directory(std::vector<uint64_t>& places) {
    const uint64_t directory = built_.bytes.size();
    const uint64_t first_table = *round_up(directory + 4 * tables_, kSector);
    built_.bytes.resize(first_table + tables_ * 4 * kEntries);
    for (uint64_t i = 0; i < tables_; ++i) places.push_back(first_table + i * 4 * kEntries);
    return directory;
  }

  void drop_unused(std::vector<uint64_t>& places) const {
    for (uint64_t i = 0; i < tables_; ++i) {
      if (!table_is_used(i)) places[i] = 0;
    }
  }

  // Header, descriptor, redundant directory with its tables, directory, tables, grains.
  BuiltVmdk build_plain() {
    if (spec_.redundant) {
      built_.redundant_directory = append_directory(built_.redundant_tables);
    }
    built_.directory = append_directory(built_.tables);
    built_.bytes.resize(*round_up(built_.bytes.size(), grain_bytes_));
    const uint64_t overhead = built_.bytes.size();
    append_grains();
    drop_unused(built_.tables);
    store_tables(built_.directory, built_.tables);
    if (spec_.redundant) {
      drop_unused(built_.redundant_tables);
      store_tables(built_.redundant_directory, built_.redundant_tables);
    }
    finish_header(built_.directory / kSector, overhead / kSector);
    return std::move(built_);
  }

  // Header, descriptor, grains, tables, directory, footer.
  BuiltVmdk build_stream() {
    built_.bytes.resize(kStreamOverhead * kSector);
    append_grains();
    for (uint64_t i = 0; i < tables_; ++i) {
      if (table_is_used(i)) append_marker(built_.bytes, 4, 1);
      built_.tables.push_back(table_is_used(i) ? built_.bytes.size() : 0);
      if (table_is_used(i)) built_.bytes.resize(built_.bytes.size() + 4 * kEntries);
    }
    append_marker(built_.bytes, 1, 2);
    built_.directory = built_.bytes.size();
    built_.bytes.resize(*round_up(built_.directory + 4 * tables_, kSector));
    store_tables(built_.directory, built_.tables);
    const uint64_t sector = built_.directory / kSector;
    if (spec_.footer) {
      append_marker(built_.bytes, 1, 3);
      append(built_.bytes, header(sector, kStreamOverhead));
      append_marker(built_.bytes, 0, 0);
    }
    finish_header(spec_.footer ? ~uint64_t{0} : sector, kStreamOverhead);
    return std::move(built_);
  }

  ByteSpan content_;
  VmdkSpec spec_;
  uint64_t grain_bytes_;
  uint64_t tables_;
  std::vector<uint32_t> entries_;
  BuiltVmdk built_;
};

}  // namespace

uint32_t BuiltVmdk::entry(uint64_t grain) const {
  return load_le<uint32_t>(bytes, entry_offset(grain));
}

void BuiltVmdk::set_entry(uint64_t grain, uint32_t sector) {
  store_le<uint32_t>(bytes, entry_offset(grain), sector);
}

BuiltVmdk build_vmdk(ByteSpan content, const VmdkSpec& spec) {
  return Builder(content, spec).build();
}

std::string vmdk_text(std::string_view create_type, const std::vector<std::string>& lines) {
  std::string text =
      fmt::format("# Disk DescriptorFile\nversion=1\ncreateType=\"{}\"\n", create_type);
  for (const std::string& line : lines) text += line + '\n';
  return text;
}

std::string vmdk_sparse_line(uint64_t sectors) {
  return fmt::format("RW {} SPARSE \"self\"", sectors);
}

std::vector<std::byte> vmdk_content(size_t size, uint32_t seed, size_t zeros_from) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < std::min(size, zeros_from); ++i) {
    const bool zero_grain = i / 4096 % 5 == 3;
    bytes[i] = zero_grain ? std::byte{0} : static_cast<std::byte>(random());
  }
  return bytes;
}

std::shared_ptr<const Source> in_memory(std::vector<std::byte> bytes) {
  return std::make_shared<const MemorySource>(std::move(bytes));
}

std::shared_ptr<const Source> in_memory(std::string_view text) {
  const ByteSpan bytes = as_bytes(text);
  return in_memory(std::vector<std::byte>(bytes.begin(), bytes.end()));
}

Result<OpenedFile> FilesInMemory::open(const std::string&, std::string_view name) const {
  const auto found = files.find(name);
  if (found == files.end()) return fail(ErrorKind::kNotFound, "no file {}", name);
  return OpenedFile{.source = found->second, .path = std::string(name)};
}

}  // namespace underlay::vmdk_test
