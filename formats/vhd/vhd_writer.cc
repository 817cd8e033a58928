#include "formats/vhd/vhd_writer.h"

#include <algorithm>
#include <array>
#include <cassert>

#include "formats/vhd/vhd_layout.h"
#include "formats/writing/content_id.h"
#include "formats/writing/data_blocks.h"

namespace underlay {
namespace {

using vhd::kSectorBytes;

constexpr uint64_t kBlockBytes = 2 << 20;     // the specification's
constexpr uint64_t kMaxSectors = 0xff000000;  // 2040 GiB, the most that others read
constexpr uint64_t kNoDataOffset = ~uint64_t{0};
constexpr uint64_t kHeaderOffset = 512;
constexpr uint64_t kTableOffset = 1536;
constexpr uint64_t kBitmapBytes = 512;  // of a block: a bit for each sector
// Where the bytes of blocks begin, so that pages of the file are pages of the disk.
constexpr uint64_t kDataAlignment = 4 << 10;

struct Geometry {
  uint64_t cylinders = 0;
  uint64_t heads = 0;
  uint64_t sectors_per_track = 0;

  uint64_t sectors() const { return cylinders * heads * sectors_per_track; }
};
constexpr Geometry kLargestGeometry{.cylinders = 65535, .heads = 16, .sectors_per_track = 255};

// The specification's "CHS Calculation".
Geometry geometry_of(uint64_t sectors) {
  constexpr uint64_t kWithin63 = 65535 * 16 * 63;
  constexpr uint64_t kMostCylinders = 1024;
  sectors = std::min(sectors, kLargestGeometry.sectors());
  if (sectors >= kWithin63) return {sectors / 255 / 16, 16, 255};
  Geometry geometry{.heads = 0, .sectors_per_track = 17};
  uint64_t tracks = sectors / 17;
  geometry.heads = std::max<uint64_t>(div_round_up(tracks, kMostCylinders), 4);
  for (const uint64_t per_track : {31ull, 63ull}) {
    if (tracks < geometry.heads * kMostCylinders && geometry.heads <= 16) break;
    geometry = {.heads = 16, .sectors_per_track = per_track};
    tracks = sectors / per_track;
  }
  geometry.cylinders = tracks / geometry.heads;
  return geometry;
}

struct Shape {
  Geometry geometry;
  uint64_t size = 0;  // of the disk, bytes
};

// As qemu-img chooses it: the smallest geometry that holds the disk, and then the disk is as large.
Result<Shape> shape_of(uint64_t size, bool force_size) {
  const uint64_t wanted = size / kSectorBytes;
  Geometry geometry = kLargestGeometry;
  if (!force_size && wanted < kLargestGeometry.sectors()) {
    uint64_t sectors = wanted;
    do {
      geometry = geometry_of(sectors++);
    } while (geometry.sectors() < wanted);
  }
  if (geometry.sectors() != kLargestGeometry.sectors()) {
    return Shape{.geometry = geometry, .size = geometry.sectors() * kSectorBytes};
  }
  if (wanted > kMaxSectors) {
    return fail(ErrorKind::kUsage,
                "a disk of {} bytes is too large for a vhd, which has at most {}", size,
                kMaxSectors * kSectorBytes);
  }
  return Shape{.geometry = geometry, .size = size};
}

// Both sizes that the image states are its parent's, whoever wrote that one. (A geometry may amount
// to more than the disk has.)
Result<Shape> shape_of_child(uint64_t size, const vhd::ParentIdentity& parent) {
  if (parent.size != size && parent.size != TRY(shape_of(size, false)).size) {
    return fail(ErrorKind::kUsage,
                "the parent \"{}\" has a disk of {} bytes, and this one has {}: name a parent that "
                "is as large, or write all of the disk",
                printable(parent.name, 200), parent.size, size);
  }
  const Shape shape = TRY(shape_of(parent.size, false));
  return shape.size == parent.size ? shape : shape_of(parent.size, true);
}

using Bitmap = std::array<std::byte, kBitmapBytes>;

// What all kinds of images have in common.
class VhdWriter : public ImageWriter {
 public:
  // `id`: what its content is, and is of.
  VhdWriter(const DiskToWrite& disk, const Shape& shape, uint32_t type, const ContentId& id,
            Sink& sink)
      : shape_(shape), sink_(sink), blocks_(disk.zero_block), type_(type), id_(id) {}

  uint64_t unit() const override { return blocks_.unit(); }

  Result<void> prepare(ByteSpan bytes, std::vector<std::byte>& prepared) const override {
    blocks_.mark(bytes, prepared);
    ContentId::digest(bytes, prepared);
    return {};
  }

  Result<void> write(uint64_t offset, ByteSpan bytes, ByteSpan prepared) override {
    const ByteSpan marks = blocks_.take_marks(bytes.size(), prepared);
    id_.add(offset, prepared);
    return blocks_.each_run(marks, offset, bytes, kBlockBytes,
                            [&](uint64_t at, ByteSpan run) { return store(at, run); });
  }

 protected:
  // Within one block.
  virtual Result<void> store(uint64_t offset, ByteSpan bytes) = 0;

  // Once all is written: the identity comes from the content. The time would make two images of
  // one disk differ, and nobody asks for it.
  std::array<std::byte, vhd::kFooterBytes> footer() const {
    std::array<std::byte, vhd::kFooterBytes> bytes{};
    std::ranges::copy(as_bytes(vhd::kFooterCookie), bytes.begin());
    store_be<uint32_t>(bytes, 8, 2);  // features: the bit that is always set
    store_be<uint32_t>(bytes, 12, 0x00010000);
    store_be<uint64_t>(bytes, 16, type_ == vhd::kTypeFixed ? kNoDataOffset : kHeaderOffset);
    std::ranges::copy(as_bytes("undl"), bytes.begin() + 28);
    store_be<uint32_t>(bytes, 32, 0x00010000);
    std::ranges::copy(as_bytes("Wi2k"), bytes.begin() + 36);
    store_be<uint64_t>(bytes, 40, shape_.size);
    store_be<uint64_t>(bytes, 48, shape_.size);
    store_be<uint16_t>(bytes, 56, static_cast<uint16_t>(shape_.geometry.cylinders));
    store_be<uint8_t>(bytes, 58, static_cast<uint8_t>(shape_.geometry.heads));
    store_be<uint8_t>(bytes, 59, static_cast<uint8_t>(shape_.geometry.sectors_per_track));
    store_be<uint32_t>(bytes, 60, type_);
    Guid id = id_.value();
    id[6] = (id[6] & std::byte{0x0f}) | std::byte{0x80};  // version 8 (RFC 9562)
    id[8] = (id[8] & std::byte{0x3f}) | std::byte{0x80};
    std::ranges::copy(id, bytes.begin() + 68);
    store_be<uint32_t>(bytes, vhd::kFooterChecksumAt,
                       vhd::checksum_of(bytes, vhd::kFooterChecksumAt));
    return bytes;
  }

  const Shape shape_;
  Sink& sink_;

 private:
  DataBlocks blocks_;
  uint32_t type_;
  ContentId id_;
};

class FixedVhdWriter final : public VhdWriter {
 public:
  FixedVhdWriter(const DiskToWrite& disk, const Shape& shape, Sink& sink)
      : VhdWriter(disk, shape, vhd::kTypeFixed, ContentId("vhd", shape.size), sink) {
    sink_.set_size(file_size());
  }

  bool is_sequential() const override { return true; }

  Result<void> finish() override {
    TRY(sink_.write(shape_.size, footer()));
    return sink_.finish(file_size());
  }

 private:
  uint64_t file_size() const { return shape_.size + vhd::kFooterBytes; }

  Result<void> store(uint64_t offset, ByteSpan bytes) override {
    return sink_.write(offset, bytes);
  }
};

class DynamicVhdWriter : public VhdWriter {
 public:
  DynamicVhdWriter(const DiskToWrite& disk, const Shape& shape, Sink& sink)
      : DynamicVhdWriter(disk, shape, vhd::kTypeDynamic, ContentId("vhd", shape.size), sink) {}

  bool is_sequential() const override { return false; }

  // The copy of the footer comes last: without it, the file does not look like a whole image.
  Result<void> finish() override {
    const auto trailing = footer();
    std::vector<std::byte> table(table_bytes(), std::byte{0xff});
    for (size_t i = 0; i < table_.size(); ++i) store_be<uint32_t>(table, i * 4, table_[i]);
    TRY(sink_.write(kTableOffset, table));
    auto dynamic = header();
    store_be<uint32_t>(dynamic, vhd::kHeaderChecksumAt,
                       vhd::checksum_of(dynamic, vhd::kHeaderChecksumAt));
    TRY(sink_.write(kHeaderOffset, dynamic));
    TRY(sink_.write(end_, trailing));
    TRY(sink_.write(0, trailing));
    return sink_.finish(end_ + trailing.size());
  }

 protected:
  DynamicVhdWriter(const DiskToWrite& disk, const Shape& shape, uint32_t type, const ContentId& id,
                   Sink& sink)
      : VhdWriter(disk, shape, type, id, sink),
        table_(div_round_up(shape.size, kBlockBytes), vhd::kFreeEntry),
        end_(table_end()) {}

  uint64_t table_end() const { return kTableOffset + table_bytes(); }
  // Room behind the table. Before anything is stored.
  void reserve(uint64_t bytes) { end_ += bytes; }

  // A block gets its bitmap at `at`: all sectors are there.
  virtual Result<void> begin_block(uint64_t at) {
    Bitmap bitmap;
    bitmap.fill(std::byte{0xff});
    return sink_.write(at, bitmap);
  }
  // Bytes from `within` on were stored in the block whose bitmap is at `at`.
  virtual Result<void> stored(uint64_t /*at*/, uint64_t /*within*/, uint64_t /*length*/) {
    return {};
  }

  Result<void> store(uint64_t offset, ByteSpan bytes) final {
    const uint64_t block = TRY(place(offset / kBlockBytes));
    const uint64_t within = offset % kBlockBytes;
    TRY(sink_.write(block + within, bytes));
    return stored(block - kBitmapBytes, within, bytes.size());
  }

  // Where the bytes of the block lie, or lie from now on, behind its bitmap.
  Result<uint64_t> place(uint64_t block) {
    if (table_[block] != vhd::kFreeEntry) {
      return uint64_t{table_[block]} * kSectorBytes + kBitmapBytes;
    }
    const uint64_t data = div_round_up(end_ + kBitmapBytes, kDataAlignment) * kDataAlignment;
    TRY(begin_block(data - kBitmapBytes));
    // Fits: disks have at most kMaxSectors.
    table_[block] = static_cast<uint32_t>((data - kBitmapBytes) / kSectorBytes);
    end_ = data + kBlockBytes;
    return data;
  }

  // But for its checksum.
  virtual std::array<std::byte, vhd::kDynamicHeaderBytes> header() const {
    std::array<std::byte, vhd::kDynamicHeaderBytes> bytes{};
    std::ranges::copy(as_bytes(vhd::kHeaderCookie), bytes.begin());
    store_be<uint64_t>(bytes, 8, kNoDataOffset);
    store_be<uint64_t>(bytes, 16, kTableOffset);
    store_be<uint32_t>(bytes, 24, 0x00010000);
    store_be<uint32_t>(bytes, 28, static_cast<uint32_t>(table_.size()));
    store_be<uint32_t>(bytes, 32, static_cast<uint32_t>(kBlockBytes));
    return bytes;
  }

 private:
  uint64_t table_bytes() const {
    return div_round_up(table_.size() * 4, kSectorBytes) * kSectorBytes;
  }

  std::vector<uint32_t> table_;  // sectors of the blocks' bitmaps
  uint64_t end_;                 // byte behind the last block
};

class DifferencingVhdWriter final : public DynamicVhdWriter {
 public:
  DifferencingVhdWriter(const DiskToWrite& disk, const Shape& shape, vhd::ParentIdentity parent,
                        vhd::ParentLocators locators, Sink& sink)
      : DynamicVhdWriter(disk, shape, vhd::kTypeDifferencing,
                         ContentId("vhd on " + vhd::to_string(parent.unique_id), shape.size,
                                   ContentId::Zeros::kAsContent),
                         sink),
        parent_(std::move(parent)),
        locators_(std::move(locators)) {
    reserve(locators_.data().size());
  }

  Result<void> finish() override {
    TRY(sink_.write(table_end(), locators_.data()));
    return DynamicVhdWriter::finish();
  }

 private:
  // What is not stored is the parent's.
  Result<void> begin_block(uint64_t) override {
    bitmap_ = {};
    return {};
  }

  Result<void> stored(uint64_t at, uint64_t within, uint64_t length) override {
    for (uint64_t byte = within; byte < within + length; byte += kSectorBytes) {
      const uint64_t sector = byte / kSectorBytes;
      bitmap_[sector / 8] |= std::byte{0x80} >> (sector % 8);
    }
    return sink_.write(at, bitmap_);
  }

  std::array<std::byte, vhd::kDynamicHeaderBytes> header() const override {
    auto bytes = DynamicVhdWriter::header();
    locators_.put(parent_, table_end(), bytes);
    return bytes;
  }

  const vhd::ParentIdentity parent_;
  const vhd::ParentLocators locators_;
  Bitmap bitmap_{};  // of the block that is written: they come in ascending order
};

}  // namespace

Result<std::unique_ptr<ImageWriter>> write_vhd(const DiskToWrite& disk, const VhdToWrite& image,
                                               Sink& sink) {
  if (disk.size == 0) return fail(ErrorKind::kUsage, "a vhd cannot hold a disk of 0 bytes");
  if (image.parent) {
    assert(!image.is_fixed && !image.force_size);
    const Shape shape = TRY(shape_of_child(disk.size, *image.parent));
    auto locators = TRY(vhd::ParentLocators::of(image.parent->name));
    return std::make_unique<DifferencingVhdWriter>(disk, shape, *image.parent, std::move(locators),
                                                   sink);
  }
  const Shape shape = TRY(shape_of(disk.size, image.force_size));
  if (image.is_fixed) return std::make_unique<FixedVhdWriter>(disk, shape, sink);
  return std::make_unique<DynamicVhdWriter>(disk, shape, sink);
}

}  // namespace underlay
