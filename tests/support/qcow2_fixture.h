// Opens qcow2 images that lie in memory, for unit tests.
#pragma once

#include <doctest/doctest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "formats/disk.h"
#include "formats/qcow2/qcow2.h"
#include "io/memory_source.h"
#include "tests/support/qcow2_builder.h"

namespace underlay {

// Files by name, beside the image.
class FilesInMemory final : public NamedFiles {
 public:
  std::map<std::string, std::shared_ptr<const Source>, std::less<>> files;
  mutable std::vector<std::string> asked;

  Result<OpenedFile> open(const std::string& namer, std::string_view name) const override {
    asked.emplace_back(name);
    const auto found = files.find(name);
    if (found == files.end()) return in_file(fail(ErrorKind::kNotFound, "not there"), namer);
    return OpenedFile{.source = found->second, .path = std::string(name)};
  }
};

// What an image is opened with. Lives as long as the readers it opened.
struct Qcow2Opener {
  Caches caches;
  FilesInMemory files;
  ImageOptions options;
  std::vector<std::string> warnings;

  Result<std::unique_ptr<Reader>> open(std::shared_ptr<const Source> source) {
    return open_qcow2({.source = std::move(source),
                       .path = "image",
                       .files = files,
                       .caches = caches,
                       .options = options,
                       .warnings = warnings});
  }
  Result<std::unique_ptr<Reader>> open(const Qcow2Builder::Bytes& file) {
    return open(std::make_shared<MemorySource>(file));
  }
  Result<Disk> open_disk(std::shared_ptr<const Source> source) {
    std::vector<Layer> layers;
    layers.push_back(Layer{.reader = TRY(open(std::move(source))), .path = "image"});
    return Disk(std::move(layers), caches);
  }
  Result<Disk> open_disk(const Qcow2Builder::Bytes& file) {
    return open_disk(std::make_shared<MemorySource>(file));
  }
};

inline Result<Qcow2Builder::Bytes> read_bytes(const Disk& disk, uint64_t offset, uint64_t length) {
  Qcow2Builder::Bytes bytes(length, std::byte{0xa5});
  TRY(disk.read(offset, bytes));
  return bytes;
}

// The failure of a Result, checked to be of `kind` and to hold `words`.
template <class T>
void check_refused(const Result<T>& result, ErrorKind kind, std::string_view words) {
  REQUIRE_FALSE(result);
  const std::string line = result.error().to_string();
  CAPTURE(line);
  CHECK(result.error().kind == kind);
  CHECK(line.find(words) != std::string::npos);
}

}  // namespace underlay
