#include "tests/support/vmdk_opened.h"

#include <algorithm>

#include "formats/vmdk/vmdk.h"

namespace underlay::vmdk_test {
namespace {

// Lends a reader to a Disk.
class Borrowed final : public Reader {
 public:
  explicit Borrowed(std::shared_ptr<const Reader> reader) : reader_(std::move(reader)) {}
  uint64_t size() const override { return reader_->size(); }
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const override {
    return reader_->map(offset, length, purpose);
  }
  Result<void> load_cluster(const Extent& extent, MutableByteSpan out) const override {
    return reader_->load_cluster(extent, out);
  }
  std::vector<const Source*> sources() const override { return reader_->sources(); }

 private:
  std::shared_ptr<const Reader> reader_;
};

Disk disk_of(const Opened& opened) {
  std::vector<Layer> layers;
  layers.push_back(
      Layer{.reader = std::make_unique<Borrowed>(opened.result.value()), .path = "memory"});
  return Disk(std::move(layers), *opened.caches);
}

}  // namespace

Opened::Opened(std::shared_ptr<const Source> source, const FilesInMemory& files)
    : result(std::shared_ptr<const Reader>()) {
  const ImageOptions options;
  const ImageToOpen image{.source = std::move(source),
                          .path = "memory",
                          .files = files,
                          .caches = *caches,
                          .options = options,
                          .warnings = warnings};
  auto opened = open_vmdk(image);
  if (opened) {
    result = std::shared_ptr<const Reader>(*std::move(opened));
  } else {
    result = Failure(std::move(opened).error());
  }
}

Result<Bytes> read_all(const Opened& opened) {
  if (!opened.result) return Failure(opened.result.error());
  const Disk disk = disk_of(opened);
  Bytes bytes(disk.size(), std::byte{0xaa});
  TRY(disk.read(0, bytes));
  return bytes;
}

Result<Bytes> read_all(const BuiltVmdk& image) { return read_all(Opened(in_memory(image.bytes))); }

std::vector<Result<Bytes>> read_steps(const Opened& opened, uint64_t step) {
  const Disk disk = disk_of(opened);
  std::vector<Result<Bytes>> all;
  for (uint64_t offset = 0; offset < disk.size(); offset += step) {
    Bytes bytes(std::min(step, disk.size() - offset), std::byte{0xaa});
    const auto read = disk.read(offset, bytes);
    if (read) {
      all.emplace_back(std::move(bytes));
    } else {
      all.emplace_back(Failure(read.error()));
    }
  }
  return all;
}

BuiltVmdk monolithic(const Bytes& content, VmdkSpec spec) {
  const char* type = spec.compressed ? "streamOptimized" : "monolithicSparse";
  spec.descriptor = vmdk_text(type, {vmdk_sparse_line(content.size() / 512)});
  return build_vmdk(content, spec);
}

}  // namespace underlay::vmdk_test
