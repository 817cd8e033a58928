// Builds VMDK images in memory, for tests that then break one field. All tests are one program:
// these helpers have their own namespace.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "formats/reader.h"
#include "io/memory_source.h"

namespace underlay::vmdk_test {

struct VmdkSpec {
  uint64_t capacity = 0;        // sectors; 0: those of the content
  uint64_t grain_size = 8;      // sectors
  bool zeroed = false;          // grains of zeros get the entry 1; else they are absent
  bool compressed = false;      // stream-optimized: markers, tables behind the grains
  bool footer = false;          // the directory is only found by the footer
  bool redundant = false;       // not compressed: a second directory with tables of its own
  std::string descriptor = {};  // embedded when not empty
};

struct BuiltVmdk {
  std::vector<std::byte> bytes;
  uint64_t grain_size = 0;
  uint64_t directory = 0;        // byte of the grain directory in the file
  std::vector<uint64_t> tables;  // byte of each grain table, 0 for absent ones
  uint64_t redundant_directory = 0;
  std::vector<uint64_t> redundant_tables;

  // Byte of a grain's entry in its grain table.
  uint64_t entry_offset(uint64_t grain) const { return tables.at(grain / 512) + grain % 512 * 4; }
  uint32_t entry(uint64_t grain) const;
  void set_entry(uint64_t grain, uint32_t sector);
};

// A sparse extent with `content`, whose tables have no entry only for tables without a grain.
BuiltVmdk build_vmdk(ByteSpan content, const VmdkSpec& spec);

// A descriptor: version, createType, and each of `lines`.
std::string vmdk_text(std::string_view create_type, const std::vector<std::string>& lines);

// "RW SECTORS SPARSE "self""
std::string vmdk_sparse_line(uint64_t sectors);

// Random bytes with some zero grains of 8 sectors and, from `zeros_from` on, only zeros.
std::vector<std::byte> vmdk_content(size_t size, uint32_t seed, size_t zeros_from);

std::shared_ptr<const Source> in_memory(std::vector<std::byte> bytes);
std::shared_ptr<const Source> in_memory(std::string_view text);

// Files by name, for images that name others.
class FilesInMemory final : public NamedFiles {
 public:
  Result<OpenedFile> open(const std::string& namer, std::string_view name) const override;

  std::map<std::string, std::shared_ptr<const Source>, std::less<>> files;
};

}  // namespace underlay::vmdk_test
