// VHDXs opened from memory: what the tests of the reader share.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "formats/open_chain.h"
#include "io/faulty_source.h"
#include "io/memory_source.h"
#include "tests/support/vhdx_builder.h"

namespace underlay::vhdx::test {

// The files that images name.
class MemoryFiles final : public NamedFiles {
 public:
  void add(const std::string& name, const Bytes& bytes) {
    files_[name] = std::make_shared<MemorySource>(bytes, name);
  }
  Result<OpenedFile> open(const std::string&, std::string_view name) const override {
    const auto file = files_.find(std::string(name));
    if (file == files_.end()) return fail(ErrorKind::kNotFound, "no file {}", name);
    return OpenedFile{.source = file->second, .path = file->first};
  }

 private:
  std::map<std::string, std::shared_ptr<const Source>> files_;
};

// An opened image, and what outlives it.
struct Opened {
  std::unique_ptr<Caches> caches = std::make_unique<Caches>();
  Result<OpenedDisk> disk = fail(ErrorKind::kUsage, "not opened");

  const Disk* operator->() const { return disk.value().disk.get(); }
  explicit operator bool() const { return disk.has_value(); }
  const Reader& reader() const { return *disk.value().disk->layers().front().reader; }
  // Why it was refused; kUsage, which no image leads to, when it was not.
  ErrorKind error() const { return disk ? ErrorKind::kUsage : disk.error().kind; }
  bool says(std::string_view words) const {
    return !disk && disk.error().message.find(words) != std::string::npos;
  }
};

inline Opened open(std::shared_ptr<const Source> source, const NamedFiles& files = MemoryFiles()) {
  Opened opened;
  OpenOptions options;
  options.format = "vhdx";
  opened.disk = open_disk(OpenedFile{.source = std::move(source), .path = "top"}, options, files,
                          *opened.caches);
  return opened;
}
inline Opened open(const Bytes& image, const NamedFiles& files = MemoryFiles()) {
  return open(std::make_shared<MemorySource>(image), files);
}

inline Result<Bytes> read(const Opened& opened, uint64_t offset, size_t length) {
  Bytes bytes(length, std::byte{0xcc});
  TRY(opened->read(offset, bytes));
  return bytes;
}
inline Bytes read_all(const Opened& opened) {
  return read(opened, 0, static_cast<size_t>(opened->size())).value();
}

constexpr uint32_t kBlock = 1 << 20;

// A disk of four blocks; 1 and 3 hold data.
inline VhdxBuilder dynamic() {
  VhdxBuilder builder;
  builder.blocks[1] = {.data = pattern(kBlock, 1)};
  builder.blocks[3] = {.data = pattern(kBlock, 3)};
  return builder;
}
// The stored blocks, and zeros.
inline Bytes content_of(const VhdxBuilder& builder) {
  Bytes content(static_cast<size_t>(builder.size));
  for (const auto& [number, block] : builder.blocks) {
    const size_t at = static_cast<size_t>(number) * builder.block_size;
    std::copy(block.data.begin(), block.data.end(),
              content.begin() + static_cast<std::ptrdiff_t>(at));
  }
  return content;
}

// A child of dynamic(), "parent.vhdx" in parent_files().
inline VhdxBuilder differencing() {
  VhdxBuilder builder;
  builder.data_write_guid = "99999999-2222-3333-4444-555555555555";
  builder.locator = {{"parent_linkage", "{11111111-2222-3333-4444-555555555555}"},
                     {"relative_path", ".\\parent.vhdx"}};
  return builder;
}
inline MemoryFiles parent_files() {
  MemoryFiles files;
  files.add("parent.vhdx", dynamic().build());
  return files;
}

}  // namespace underlay::vhdx::test
