// Images opened from memory: what the tests of several readers share.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "formats/open_chain.h"
#include "io/memory_source.h"
#include "tests/support/test_bytes.h"

namespace underlay::test {

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
  std::string message() const { return disk ? "" : disk.error().message; }
  bool says(std::string_view words) const { return message().find(words) != std::string::npos; }
};

inline Opened open_as(const OpenOptions& options, std::shared_ptr<const Source> source,
                      const NamedFiles& files) {
  Opened opened;
  opened.disk = open_disk(OpenedFile{.source = std::move(source), .path = "top"}, options, files,
                          *opened.caches);
  return opened;
}

inline Result<Bytes> read(const Opened& opened, uint64_t offset, size_t length) {
  Bytes bytes(length, std::byte{0xcc});
  TRY(opened->read(offset, bytes));
  return bytes;
}

inline Bytes read_all(const Opened& opened) {
  return read(opened, 0, static_cast<size_t>(opened->size())).value();
}

}  // namespace underlay::test
