#include "fuzz/files_of_input.h"

#include <algorithm>

#include "formats/file_name.h"
#include "fuzz/image_of_input.h"
#include "fuzz/rules.h"
#include "io/memory_source.h"

namespace underlay {
namespace {

constexpr size_t kMaxFiles = 16;
// An image of a chain may name some thousands of extents, and no file stands twice in a chain.
constexpr size_t kMaxOpened = kMaxFiles * 5000;

// Bytes in memory, with an identity: loops are found by it.
class FileInMemory final : public Source {
 public:
  FileInMemory(std::vector<std::byte> bytes, std::string name, FileIdentity identity)
      : bytes_(std::move(bytes), std::move(name)), identity_(identity) {}

  const std::string& name() const override { return bytes_.name(); }
  uint64_t size() const override { return bytes_.size(); }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override {
    return bytes_.read_at(offset, out);
  }
  size_t read_cached(uint64_t offset, MutableByteSpan out) const override {
    return bytes_.read_cached(offset, out);
  }
  std::optional<FileIdentity> identity() const override { return identity_; }

 private:
  MemorySource bytes_;
  FileIdentity identity_;
};

}  // namespace

FilesOfInput::FilesOfInput(ByteSpan input) {
  ByteReader reader(input);
  while (reader.remaining() > 5 && files_.size() < kMaxFiles) {
    const size_t name_length = reader.le<uint8_t>();
    const ByteSpan name = reader.bytes(std::min(name_length, reader.remaining()));
    const bool is_short = reader.le<uint8_t>() == 1;
    const size_t low = reader.le<uint16_t>();
    const size_t length = low | static_cast<size_t>(reader.le<uint8_t>()) << 16;
    if (!reader.ok()) return;
    const ByteSpan bytes = reader.bytes(std::min(length, reader.remaining()));
    std::vector<std::byte> content(bytes.begin(), bytes.end());
    if (is_short) content = image_of_input(bytes);
    const std::string path(as_text(name));
    const FileIdentity identity{.device = 1, .inode = files_.size()};
    files_.push_back(
        {.source = std::make_shared<FileInMemory>(std::move(content), printable(path), identity),
         .path = path});
  }
}

Result<OpenedFile> FilesOfInput::open(const std::string& namer, std::string_view name) const {
  require(std::any_of(files_.begin(), files_.end(),
                      [&](const OpenedFile& file) { return file.path == namer; }),
          "names start at an image of the chain");
  require(!names_protocol(name), "a protocol in an image is never followed");
  require(++opened_ < kMaxOpened, "a chain ends");
  if (name.starts_with("./")) name.remove_prefix(2);
  if (name.find('/') != std::string_view::npos || name.find('\0') != std::string_view::npos) {
    return fail(ErrorKind::kDenied, "\"{}\" leads out of the folder", printable(name, 80));
  }
  for (const OpenedFile& file : files_) {
    if (file.path == name) return file;
  }
  return fail(ErrorKind::kNotFound, "no file \"{}\"", printable(name, 80));
}

}  // namespace underlay
