#include "formats/libyal/libyal_opinion.h"

#include <algorithm>
#include <iterator>

#include "formats/disk.h"
#include "formats/format_table.h"
#include "formats/inspection/inspector.h"
#include "formats/libyal/libyal_file.h"

namespace underlay::libyal {
namespace {

// What is kept at a time, whatever the image's own unit is.
constexpr uint64_t kUnit = 64 << 10;

using Ask = Result<SecondOpinion> (*)(const std::shared_ptr<const Disk>&);

// What the library is asked for at a time: within one cluster of each image of the chain. libqcow
// gives a parent's bytes for all of a read that begins where the image has none, also where it has
// its own further on (libyal/libqcow#20).
uint64_t piece_of(const std::vector<Layer>& layers) {
  uint64_t piece = kUnit;
  if (layers.size() == 1) return piece;
  for (const Layer& layer : layers) {
    if (const uint64_t cluster = layer.reader->cluster_size(); cluster > 0) {
      piece = std::min(piece, cluster);
    }
  }
  return piece;
}

class OpinionReader final : public Reader {
 public:
  OpinionReader(std::shared_ptr<const Disk> own, std::unique_ptr<LibraryFile> file)
      : own_(std::move(own)), file_(std::move(file)), piece_(piece_of(own_->layers())) {}

  uint64_t size() const override { return file_->size(); }
  uint64_t cluster_size() const override { return kUnit; }
  std::vector<const Source*> sources() const override {
    return own_->layers().front().reader->sources();
  }

  Result<Extent> map(uint64_t offset, uint64_t length, MapFor) const override {
    Extent extent;
    extent.kind = Extent::Kind::kCopied;
    extent.source = sources().front();
    extent.cluster_start = offset - offset % kUnit;
    extent.cluster_length = static_cast<uint32_t>(std::min(kUnit, size() - extent.cluster_start));
    extent.length = std::min(length, extent.cluster_start + extent.cluster_length - offset);
    return extent;
  }

  Result<void> load_cluster(const Extent& extent, MutableByteSpan out) const override {
    const uint64_t end = std::min(extent.cluster_start + out.size(), own_->size());
    for (uint64_t at = extent.cluster_start; at < end;) at += TRY(check(at, end - at));
    for (uint64_t done = 0; done < out.size(); done += piece_) {
      const auto length = static_cast<size_t>(std::min<uint64_t>(piece_, out.size() - done));
      TRY(file_->read_at(extent.cluster_start + done, out.subspan(done, length)));
    }
    return {};
  }

 private:
  // Fails when the library misreads what lies at `offset`, or might crash on it: a stream that does
  // not unpack. The bytes that are alike.
  Result<uint64_t> check(uint64_t offset, uint64_t length) const {
    const Extent extent = TRY(own_->map(offset, length, MapFor::kRead));
    if (extent.kind == Extent::Kind::kZero && extent.depth > 0 && misreads_zeros()) {
      return in_file(fail(ErrorKind::kUnsupported,
                          "guest offset {} lies where the image says that there are zeros, which "
                          "{} does not know",
                          offset, file_->library().name),
                     own_->layers()[extent.depth - 1u].path);
    }
    if (extent.kind == Extent::Kind::kZero && extent.depth == 0) TRY(check_in_parents(offset));
    if (extent.is_loaded()) TRY(own_->unpacked(extent));
    return extent.length;
  }

  // Past the end of a parent, libqcow asks that one again and again, for ever, and libvmdk fails.
  Result<void> check_in_parents(uint64_t offset) const {
    const std::vector<Layer>& layers = own_->layers();
    for (auto parent = std::next(layers.begin()); parent != layers.end(); ++parent) {
      if (offset < parent->reader->size()) continue;
      return in_file(fail(ErrorKind::kUnsupported,
                          "ends at {} bytes, and guest offset {}, which {} looks for in it, lies "
                          "behind",
                          parent->reader->size(), offset, file_->library().name),
                     parent->path);
    }
    return {};
  }

  // libvhdi knows the zeros of the formats that it reads.
  bool misreads_zeros() const { return file_->library().file_set_parent != nullptr; }

  std::shared_ptr<const Disk> own_;
  std::unique_ptr<LibraryFile> file_;
  uint64_t piece_;
};

// Of a vmdk. (Of an image that has extents in the descriptor's file and in others, or extents
// without a file, these are too few, as libvmdk then finds.)
std::vector<std::shared_ptr<const Source>> extents_of(const std::shared_ptr<const Disk>& own,
                                                      const Reader& reader) {
  std::vector<std::shared_ptr<const Source>> extents;
  for (const Source* const source : reader.sources()) extents.emplace_back(own, source);
  if (extents.size() > 1) extents.erase(extents.begin());
  return extents;
}

// The chain as the library reads it, its root first.
Result<SecondOpinion> opinion_of(const Library& library, const std::shared_ptr<const Disk>& own,
                                 Ask ask) {
  const std::vector<Layer>& layers = own->layers();
  if (layers.size() > 1 && library.file_set_parent == nullptr) {
    return fail(ErrorKind::kUnsupported,
                "{} misreads differencing images, where a run of sectors begins or ends inside a "
                "byte of the bitmap",
                library.name);
  }
  std::unique_ptr<LibraryFile> file;
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    const Format* const format = find_format(layer->format);
    if (format == nullptr || inspector_of(format->name).second_opinion != ask) {
      return in_file(
          fail(ErrorKind::kUnsupported, "{} does not read parents of this format", library.name),
          layer->path);
    }
    const Reader& reader = *layer->reader;
    if (format->name == "qcow" && reader.parent()) {
      return in_file(fail(ErrorKind::kUnsupported,
                          "{} looks for the tables of qcow images with a parent where they are not",
                          library.name),
                     layer->path);
    }
    ImageFiles files{.image = {own, &reader.image_source()}};
    if (library.file_open_extents != nullptr) {
      files.extents = extents_of(own, reader);
    } else if (reader.sources().size() != 1) {
      return in_file(
          fail(ErrorKind::kUnsupported, "{} does not read images of several files", library.name),
          layer->path);
    }
    file = TRY(LibraryFile::open(library, std::move(files), std::move(file)));
  }
  return SecondOpinion{.library = library.name,
                       .reader = std::make_unique<const OpinionReader>(own, std::move(file))};
}

}  // namespace

Result<SecondOpinion> opinion_of_libqcow(const std::shared_ptr<const Disk>& own) {
  return opinion_of(*TRY(libqcow()), own, opinion_of_libqcow);
}

Result<SecondOpinion> opinion_of_libvhdi(const std::shared_ptr<const Disk>& own) {
  return opinion_of(*TRY(libvhdi()), own, opinion_of_libvhdi);
}

Result<SecondOpinion> opinion_of_libvmdk(const std::shared_ptr<const Disk>& own) {
  return opinion_of(*TRY(libvmdk()), own, opinion_of_libvmdk);
}

}  // namespace underlay::libyal
