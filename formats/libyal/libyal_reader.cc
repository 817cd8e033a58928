#include "formats/libyal/libyal_reader.h"

#include <algorithm>
#include <vector>

#include "formats/libyal/libyal_file.h"

namespace underlay::libyal {
namespace {

// What is fetched at a time. Not the image's own unit: the library is not asked for that.
constexpr uint64_t kUnit = 64 << 10;

// Extents of our own reader for which the library gives other bytes.
enum class Misread : uint8_t { kNothing, kZeros };

constexpr size_t kSectorBytes = 512;

bool has_zero_sector(ByteSpan bytes) {
  for (size_t at = 0; at < bytes.size(); at += kSectorBytes) {
    if (is_zero(bytes.subspan(at, std::min(kSectorBytes, bytes.size() - at)))) return true;
  }
  return false;
}

class LibraryReader final : public Reader {
 public:
  LibraryReader(std::shared_ptr<const Reader> own, std::unique_ptr<LibraryFile> file,
                Misread misread)
      : own_(std::move(own)), file_(std::move(file)), misread_(misread) {}

  uint64_t size() const override { return own_->size(); }
  uint64_t cluster_size() const override { return kUnit; }
  std::string identity() const override { return own_->identity(); }
  std::vector<const Source*> sources() const override { return own_->sources(); }

  Result<Extent> map(uint64_t offset, uint64_t length, MapFor) const override {
    Extent extent;
    extent.kind = Extent::Kind::kCopied;
    extent.source = own_->sources().front();
    extent.cluster_start = offset - offset % kUnit;
    extent.cluster_length = static_cast<uint32_t>(std::min(kUnit, size() - extent.cluster_start));
    extent.length = std::min(length, extent.cluster_start + extent.cluster_length - offset);
    return extent;
  }

  Result<void> load_cluster(const Extent& extent, MutableByteSpan out) const override {
    for (uint64_t done = 0; done < out.size();) {
      done += TRY(check_stored(extent.cluster_start + done, out.subspan(done)));
    }
    TRY(file_->read_at(extent.cluster_start, out));
    return check_zeros(extent.cluster_start, out);
  }

 private:
  // Zeros of the library are believed where our own reader proves them, or reads them too; and
  // where ours proves zeros, nothing else is. (In a dynamic VHD, libvhdi takes sectors whose bit is
  // not set for zeros, whatever is stored there; but only whole bytes of bits, so that in those of
  // tapdisk it also shows what the device held before.)
  Result<void> check_zeros(uint64_t offset, ByteSpan bytes) const {
    for (uint64_t done = 0; done < bytes.size();) {
      const Extent own = TRY(own_->map(offset + done, bytes.size() - done, MapFor::kRead));
      const ByteSpan part = bytes.subspan(done, static_cast<size_t>(own.length));
      if (own.kind == Extent::Kind::kData && has_zero_sector(part)) {
        std::vector<std::byte> stored(part.size());
        TRY(own.source->read_at(own.source_offset, stored));
        TRY(check_zero_sectors(offset + done, part, stored));
      }
      const bool is_zeros = own.kind == Extent::Kind::kZero || own.kind == Extent::Kind::kParent;
      if (is_zeros && !is_zero(part)) return shows_other_bytes(offset + done, part);
      done += own.length;
    }
    return {};
  }

  Result<void> check_zero_sectors(uint64_t offset, ByteSpan bytes, ByteSpan stored) const {
    for (size_t at = 0; at < bytes.size(); at += kSectorBytes) {
      const size_t length = std::min(kSectorBytes, bytes.size() - at);
      if (!is_zero(bytes.subspan(at, length)) || is_zero(stored.subspan(at, length))) continue;
      return in_file(fail(ErrorKind::kUnsupported,
                          "--reader libyal: {} reads zeros at guest offset {}, where the image has "
                          "other bytes: --reader own reads them",
                          file_->library().name, offset + at),
                     own_->sources().front()->name());
    }
    return {};
  }

  Failure shows_other_bytes(uint64_t offset, ByteSpan bytes) const {
    const auto other =
        std::find_if(bytes.begin(), bytes.end(), [](std::byte b) { return b != std::byte{0}; });
    return in_file(
        fail(ErrorKind::kUnsupported,
             "--reader libyal: {} reads other bytes than zeros at guest offset {}, "
             "where the image has zeros: --reader own reads them",
             file_->library().name, offset + static_cast<uint64_t>(other - bytes.begin())),
        own_->sources().front()->name());
  }

  // Fails when what lies at `offset` cannot be there, or is misread; the bytes that are alike.
  // `scratch` is written to.
  Result<uint64_t> check_stored(uint64_t offset, MutableByteSpan scratch) const {
    const Extent stored = TRY(own_->map(offset, scratch.size(), MapFor::kRead));
    if (stored.kind == Extent::Kind::kZero && misread_ == Misread::kZeros) {
      return in_file(fail(ErrorKind::kUnsupported,
                          "--reader libyal: guest offset {} lies in a cluster with the zero flag, "
                          "which {} does not know: --reader own reads it",
                          offset, file_->library().name),
                     own_->sources().front()->name());
    }
    if (!stored.is_loaded()) return stored.length;
    if (stored.cluster_length <= scratch.size()) {
      TRY(own_->load_cluster(stored, scratch.first(stored.cluster_length)));
    } else {
      std::vector<std::byte> whole(stored.cluster_length);
      TRY(own_->load_cluster(stored, whole));
    }
    return stored.length;
  }

  std::shared_ptr<const Reader> own_;
  std::unique_ptr<LibraryFile> file_;
  Misread misread_;
};

Failure refused(std::string_view why) {
  return fail(ErrorKind::kUnsupported, "--reader libyal: {}; --reader own reads it", why);
}

// The library reads what our own reader reads, which need not be the file as it is: the log of a
// VHDX is replayed there.
Result<std::unique_ptr<LibraryFile>> open_file(const Library& library,
                                               const std::shared_ptr<const Reader>& own) {
  if (own->sources().size() != 1) return refused("images of several files are not read");
  auto file = TRY(LibraryFile::open(
      library, {.image = std::shared_ptr<const Source>(own, &own->image_source())}));
  if (file->size() != own->size()) {
    return refused(fmt::format("{} takes the disk for {} bytes, it has {}", library.name,
                               file->size(), own->size()));
  }
  return file;
}

}  // namespace

Result<std::unique_ptr<Reader>> open_with_libqcow(const ImageToOpen& image, OpenImage open) {
  const Library* library = TRY(libqcow());
  if (image.options.snapshot) return refused("libqcow reads no internal snapshots (-l)");
  const std::shared_ptr<const Reader> own = TRY(open(image));
  if (own->parent()) {
    return refused("libqcow does not tell what an image with backing file has of its own");
  }
  auto file = TRY(open_file(*library, own));
  return std::make_unique<LibraryReader>(own, std::move(file), Misread::kZeros);
}

Result<std::unique_ptr<Reader>> open_with_libvhdi(const ImageToOpen& image, OpenImage open) {
  const Library* library = TRY(libvhdi());
  const std::shared_ptr<const Reader> own = TRY(open(image));
  if (own->parent()) {
    return refused(
        "libvhdi misreads differencing images, where a run of sectors begins or ends "
        "inside a byte of the bitmap");
  }
  auto file = TRY(open_file(*library, own));
  return std::make_unique<LibraryReader>(own, std::move(file), Misread::kNothing);
}

}  // namespace underlay::libyal
