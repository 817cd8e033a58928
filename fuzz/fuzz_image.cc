// Any bytes as an image of the format UNDERLAY_FUZZ_FORMAT: opening, mapping, reading and looking
// into it must keep the contracts of formats/reader.h, formats/disk.h and
// formats/inspection/inspector.h, and agree, within bounded time and memory. Aborts when they do
// not.
#include <algorithm>

#include "formats/format_table.h"
#include "fuzz/disk_rules.h"
#include "fuzz/image_of_input.h"
#include "fuzz/inspection_rules.h"
#include "fuzz/rules.h"
#include "io/memory_source.h"

namespace underlay {
namespace {

constexpr int kMaxSteps = 512;  // of a dirty bitmap

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
    offset += run ? run->length : std::min<uint64_t>(asked, 64 << 10);
  }
}

// One image, opened and looked into.
class Image {
 public:
  explicit Image(ByteSpan input)
      : format_(*find_format(UNDERLAY_FUZZ_FORMAT)),
        files_(input),
        source_(std::make_shared<MemorySource>(image_of_input(input), "image")) {}

  void check() {
    (void)guess_format(*source_);
    const Inspected inspected = look();
    auto reader = open({});
    if (reader == nullptr) return;
    check_bitmap(*reader);
    check_agreement(inspected, std::move(reader));
    check_other_options(inspected);
  }

 private:
  Inspected look() {
    const ImageOptions options;
    return inspect(inspector_of(format_.name), {.source = source_,
                                                .path = "image",
                                                .files = files_,
                                                .caches = caches_,
                                                .options = options});
  }

  std::unique_ptr<Reader> open(const ImageOptions& options) {
    std::vector<std::string> warnings;
    auto reader = format_.open({.source = source_,
                                .path = "image",
                                .files = files_,
                                .caches = caches_,
                                .options = options,
                                .warnings = warnings});
    if (reader) return *std::move(reader);
    check_error(reader.error());
    return nullptr;
  }

  std::optional<Error> check_bytes(std::unique_ptr<Reader> reader) {
    std::vector<Layer> layers;
    layers.push_back({.reader = std::move(reader), .path = "image", .format = format_.name});
    const Disk disk(std::move(layers), caches_);
    if (const auto bitmap = find_dirty_bitmap(disk, "b"); !bitmap) check_error(bitmap.error());
    return check_disk(disk);
  }

  // What is served must be what people are told who look into it.
  void check_agreement(const Inspected& inspected, std::unique_ptr<Reader> reader) {
    require(inspected.facts.has_value(), "what can be opened can be described");
    const ImageFacts& facts = *inspected.facts;
    require(facts.virtual_size == reader->size(), "the size is described as it is served");
    for (const Finding& finding : facts.findings) {
      require(finding.kind != Finding::Kind::kCorruption, "what must not be served is not opened");
    }
    require(inspected.dumped, "what can be opened can be dumped");
    require(inspector_of(format_.name).check == nullptr || inspected.checked,
            "what can be opened can be checked");
    if (const auto parent = reader->parent()) {
      for (const std::string& name : parent->names) {
        require(!name.empty(), "a parent's name says one");
        require(std::any_of(facts.names.begin(), facts.names.end(),
                            [&](const NameInImage& told) { return leads_to(told, name); }),
                "every file that is opened is told of");
      }
    }
    const auto failure = check_bytes(std::move(reader));
    if (failure && inspected.clean) {
      std::fprintf(stderr, "%s\n", failure->to_string().c_str());
      require(false, "what a check calls clean can be read");
    }
  }

  static bool leads_to(const NameInImage& told, const std::string& name) {
    return told.name == name ||
           std::find(told.otherwise.begin(), told.otherwise.end(), name) != told.otherwise.end();
  }

  // Other contents that the image may have: of its snapshots, of another size.
  void check_other_options(const Inspected& inspected) {
    if (format_.snapshots && !inspected.facts->snapshots.empty()) {
      ImageOptions options;
      options.snapshot = inspected.facts->snapshots.back().id;
      if (auto reader = open(options)) check_bytes(std::move(reader));
    }
    if (format_.name != "vpc") return;
    using Size = ImageOptions::VhdSize;
    for (const Size size : {Size::kChs, Size::kCurrentSize, Size::kLargest}) {
      ImageOptions options;
      options.vhd_size = size;
      (void)open(options);
    }
  }

  const Format& format_;
  RestOfImage files_;
  std::shared_ptr<const Source> source_;
  // Small, so that blocks are evicted.
  Caches caches_{Caches::Budget{.tables = 256 << 10, .clusters = 256 << 10}};
};

}  // namespace
}  // namespace underlay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  underlay::Image(std::as_bytes(std::span(data, size))).check();
  return 0;
}
