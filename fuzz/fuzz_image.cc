// Any bytes as an image of the format UNDERLAY_FUZZ_FORMAT: opening, mapping and reading must keep
// the contract of formats/reader.h, within bounded time and memory. Aborts when they do not.
#include <algorithm>
#include <limits>

#include "formats/disk.h"
#include "formats/format_table.h"
#include "fuzz/image_of_input.h"
#include "fuzz/rules.h"
#include "io/memory_source.h"

namespace underlay {
namespace {

using Kind = Extent::Kind;

// Enough to reach every kind of table entry that a small file can hold.
constexpr int kMaxSteps = 512;
constexpr uint64_t kSkipAfterError = 64 << 10;
constexpr uint64_t kMaxRead = 16 << 10;

// Of the files that the image may name, parents, extents and data files, there is one: "rest", the
// bytes behind the first kRestOffset of the image itself.
class RestOfImage final : public NamedFiles {
 public:
  static constexpr size_t kRestOffset = 1024;  // a header that only holds a descriptor, and that

  explicit RestOfImage(ByteSpan image)
      : rest_(std::make_shared<const MemorySource>(std::vector<std::byte>(
            image.begin() + static_cast<std::ptrdiff_t>(std::min(kRestOffset, image.size())),
            image.end()))) {}

  Result<OpenedFile> open(const std::string&, std::string_view name) const override {
    if (name == "rest") return OpenedFile{.source = rest_, .path = "rest"};
    return fail(ErrorKind::kNotFound, "there are no other files");
  }

 private:
  std::shared_ptr<const Source> rest_;
};

void check_loaded(const Extent& extent, uint64_t offset) {
  require(extent.cluster_length > 0 && extent.cluster_start <= offset &&
              range_within(offset - extent.cluster_start, extent.length, extent.cluster_length),
          "an extent that is loaded lies in its cluster");
}

void check_extent(const Reader& reader, const Extent& extent, uint64_t offset, uint64_t asked) {
  require(extent.length > 0 && extent.length <= asked, "0 < extent.length <= length");
  if (extent.kind == Kind::kZero || extent.kind == Kind::kParent) return;
  const auto sources = reader.sources();
  require(std::find(sources.begin(), sources.end(), extent.source) != sources.end(),
          "an extent's source is one of the reader's");
  const uint64_t stored = extent.kind == Kind::kData ? extent.length : 1;
  require(range_within(extent.source_offset, stored, extent.source->size()),
          "stored bytes lie within their file");
  if (extent.is_loaded()) check_loaded(extent, offset);
}

// What may be answered without waiting must be what waiting gives.
void check_same(const Result<Extent>& now, const Result<Extent>& later) {
  if (!now && now.error().kind == ErrorKind::kWouldBlock) return;
  require(now.has_value() == later.has_value(), "kReadNow and kRead agree on failure");
  if (!now) return;
  require(now->kind == later->kind, "kReadNow and kRead agree on the kind");
  if (now->kind == Kind::kData || now->is_loaded()) {
    require(now->source == later->source && now->source_offset == later->source_offset,
            "kReadNow and kRead agree on the place");
  }
}

// Maps `offset` for every purpose; the bytes to go on by.
uint64_t check_map(const Reader& reader, uint64_t offset) {
  const uint64_t asked = reader.size() - offset;
  uint64_t step = std::min(asked, kSkipAfterError);
  const auto now = reader.map(offset, asked, MapFor::kReadNow);
  const auto later = reader.map(offset, asked, MapFor::kRead);
  check_same(now, later);
  for (const auto& answer : {later, reader.map(offset, asked, MapFor::kStatus)}) {
    if (answer) {
      check_extent(reader, *answer, offset, asked);
      step = answer->length;
    } else {
      require(answer.error().kind != ErrorKind::kWouldBlock, "only kReadNow would block");
      check_error(answer.error());
    }
  }
  return step;
}

void check_read(const Disk& disk, uint64_t offset) {
  std::vector<std::byte> bytes(std::min(kMaxRead, disk.size() - offset), std::byte{0xa5});
  const auto read = disk.read(offset, bytes);
  if (!read) return check_error(read.error());
  const auto extent = disk.map(offset, bytes.size(), MapFor::kRead);
  require(extent.has_value(), "what can be read can be mapped");
  if (extent->kind != Kind::kZero) return;
  const auto end = bytes.begin() + static_cast<std::ptrdiff_t>(extent->length);
  require(std::all_of(bytes.begin(), end, [](std::byte b) { return b == std::byte{0}; }),
          "zeros read as zeros");
}

void check_disk(const Disk& disk, const Reader& reader) {
  uint64_t offset = 0;
  for (int step = 0; step < kMaxSteps && offset < reader.size(); ++step) {
    const uint64_t length = check_map(reader, offset);
    check_read(disk, offset);
    offset += length;
  }
  if (disk.size() == 0) return;
  if (reader.size() > 0) check_map(reader, reader.size() - 1);
  check_read(disk, disk.size() - std::min(disk.size(), kMaxRead));
}

// The dirty bitmap "b", as far as some steps go.
void check_bitmap(const Reader& reader) {
  const auto bitmap = reader.dirty_bitmap("b");
  if (!bitmap) return check_error(bitmap.error());
  if (!*bitmap) return;
  uint64_t offset = 0;
  for (int step = 0; step < kMaxSteps && offset < reader.size(); ++step) {
    const uint64_t asked = reader.size() - offset;
    const auto run = (*bitmap)->run_at(offset, asked);
    if (!run) check_error(run.error());
    if (run) require(run->length > 0 && run->length <= asked, "0 < run.length <= length");
    offset += run ? run->length : std::min(asked, kSkipAfterError);
  }
}

void run(ByteSpan bytes) {
  const Format& format = *find_format(UNDERLAY_FUZZ_FORMAT);
  const auto source = std::make_shared<MemorySource>(image_of_input(bytes), "image");
  (void)guess_format(*source);
  // Outlive the reader.
  Caches caches(Caches::Budget{.tables = 1 << 20, .clusters = 4 << 20});
  const RestOfImage files(bytes);
  const ImageOptions options;
  std::vector<std::string> warnings;
  auto reader = format.open({.source = source,
                             .path = "image",
                             .files = files,
                             .caches = caches,
                             .options = options,
                             .warnings = warnings});
  if (!reader) return check_error(reader.error());
  const Reader& opened = **reader;
  if (const auto parent = opened.parent()) {
    for (const std::string& name : parent->names) {
      require(!name.empty(), "a parent's name says one");
    }
  }
  check_bitmap(opened);
  std::vector<Layer> layers;
  layers.push_back({.reader = *std::move(reader), .path = "image"});
  check_disk(Disk(std::move(layers), caches), opened);
}

}  // namespace
}  // namespace underlay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  underlay::run(std::as_bytes(std::span(data, size)));
  return 0;
}
