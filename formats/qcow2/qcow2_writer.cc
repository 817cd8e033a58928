#include "formats/qcow2/qcow2_writer.h"

#include <algorithm>

#include "formats/qcow2/qcow2_allocator.h"
#include "formats/qcow2/qcow2_layout.h"
#include "formats/writing/compressor.h"
#include "formats/writing/data_blocks.h"

namespace underlay {
namespace {

constexpr uint64_t kEntryBytes = 8;
constexpr uint32_t kRefcountOrder = 4;
constexpr uint32_t kHeaderBytes = 112;  // of version 3
constexpr uint32_t kHeaderBytesVersion2 = 72;
constexpr uint32_t kBackingFormatExtension = 0xe2792aca;
constexpr size_t kMaxBacking = 900;  // bytes: it must fit into the first cluster, and QEMU's limit
constexpr uint64_t kUsualUnit = 64 << 10;

// Bits of L1 and L2 entries.
constexpr uint64_t kCopied = 1ull << 63;
constexpr uint64_t kCompressed = 1ull << 62;

// The entry of a stream of `length` bytes: its place, and how many further sectors it reaches into.
uint64_t compressed_entry(uint64_t offset, uint64_t length, uint32_t cluster_bits) {
  const uint64_t sectors = (offset + length - 1) / 512 - offset / 512;
  return kCompressed | sectors << (62 - (cluster_bits - 8)) | offset;
}

// Keeps the tables of an image up to date: the L2 table that is being filled, and the L1 table.
class Qcow2Tables {
 public:
  Qcow2Tables(uint64_t disk_size, uint64_t cluster_size, Qcow2Allocator& clusters, Sink& sink)
      : cluster_size_(cluster_size),
        entries_(cluster_size / kEntryBytes),
        clusters_(clusters),
        sink_(sink),
        l1_(std::max<uint64_t>(div_round_up(disk_size, cluster_size * entries_), 1)) {}

  uint64_t l1_bytes() const { return l1_.size() * kEntryBytes; }
  uint32_t l1_entries() const { return static_cast<uint32_t>(l1_.size()); }

  // The table of that cluster of the disk is the one that is filled from here on. Called in
  // ascending order, before the cluster's place is taken.
  Result<void> open(uint64_t cluster) {
    const uint64_t table = cluster / entries_;
    if (!l2_.empty() && table == table_) return {};
    TRY(close());
    table_ = table;
    l2_.assign(cluster_size_, std::byte{});
    l1_[table] = TRY(clusters_.take_cluster()) | kCopied;
    return {};
  }
  // REQUIRES: the cluster's table is open.
  void set(uint64_t cluster, uint64_t entry) {
    store_be<uint64_t>(l2_, cluster % entries_ * kEntryBytes, entry);
  }
  uint64_t entry(uint64_t cluster) const {
    return load_be<uint64_t>(l2_, cluster % entries_ * kEntryBytes);
  }

  Result<void> close() {
    if (l2_.empty()) return {};
    return sink_.write(l1_[table_] & ~kCopied, l2_);
  }

  Result<void> write_l1(uint64_t offset) const {
    std::vector<std::byte> bytes(l1_bytes());
    for (size_t i = 0; i < l1_.size(); ++i) store_be<uint64_t>(bytes, i * kEntryBytes, l1_[i]);
    return sink_.write(offset, bytes);
  }

 private:
  uint64_t cluster_size_;
  uint64_t entries_;  // in an L2 table
  Qcow2Allocator& clusters_;
  Sink& sink_;
  std::vector<uint64_t> l1_;   // also of a disk of no bytes, one entry
  uint64_t table_ = 0;         // the L2 table that is being filled
  std::vector<std::byte> l2_;  // empty: none yet
};

// What both kinds of images have in common.
class Qcow2Writer : public ImageWriter {
 public:
  Qcow2Writer(const DiskToWrite& disk, const Qcow2ToWrite& image, Sink& sink)
      : cluster_size_(uint64_t{1} << image.cluster_bits),
        disk_(disk),
        image_(image),
        sink_(sink),
        clusters_(cluster_size_, sink),
        tables_(disk.size, cluster_size_, clusters_, sink) {}

  bool is_sequential() const override { return false; }

  // The header comes last: without it, the file is no image.
  Result<void> finish() override {
    TRY(tables_.close());
    const auto end = TRY(clusters_.finish(tables_.l1_bytes()));
    TRY(tables_.write_l1(end.l1_offset));
    TRY(sink_.write(0, header(end)));
    return sink_.finish(end.file_size);
  }

 protected:
  const uint64_t cluster_size_;
  const DiskToWrite disk_;
  const Qcow2ToWrite image_;
  Sink& sink_;
  Qcow2Allocator clusters_;
  Qcow2Tables tables_;

 private:
  std::vector<std::byte> header(const Qcow2Allocator::End& end) const {
    std::vector<std::byte> bytes(cluster_size_);
    std::ranges::copy(kQcow2Magic, bytes.begin());
    store_be<uint32_t>(bytes, 4, image_.version);
    store_be<uint32_t>(bytes, 20, image_.cluster_bits);
    store_be<uint64_t>(bytes, 24, disk_.size);
    store_be<uint32_t>(bytes, 36, tables_.l1_entries());
    store_be<uint64_t>(bytes, 40, end.l1_offset);
    store_be<uint64_t>(bytes, 48, end.refcount_table_offset);
    store_be<uint32_t>(bytes, 56, end.refcount_table_clusters);
    if (image_.version < 3) {
      add_backing(kHeaderBytesVersion2, bytes);
      return bytes;
    }
    const bool is_zstd = image_.codec == Codec::kZstd;
    store_be<uint64_t>(bytes, 72, is_zstd ? Qcow2Header::kCompressionType : 0);
    store_be<uint32_t>(bytes, 96, kRefcountOrder);
    store_be<uint32_t>(bytes, 100, kHeaderBytes);
    bytes[104] = std::byte{is_zstd};
    add_backing(kHeaderBytes, bytes);
    return bytes;
  }

  // "Header extensions", from `at` on, and behind their end the name.
  void add_backing(size_t at, std::vector<std::byte>& bytes) const {
    if (image_.backing.empty()) return;
    const std::string& format = image_.backing_format;
    store_be<uint32_t>(bytes, at, kBackingFormatExtension);
    store_be<uint32_t>(bytes, at + 4, static_cast<uint32_t>(format.size()));
    std::ranges::copy(as_bytes(format), bytes.begin() + static_cast<ptrdiff_t>(at + 8));
    at += 8 + 8 * div_round_up(format.size(), 8) + 8;  // all zeros: the end
    store_be<uint64_t>(bytes, 8, at);
    store_be<uint32_t>(bytes, 16, static_cast<uint32_t>(image_.backing.size()));
    std::ranges::copy(as_bytes(image_.backing), bytes.begin() + static_cast<ptrdiff_t>(at));
  }
};

// Clusters as they are.
class PlainQcow2Writer final : public Qcow2Writer {
 public:
  PlainQcow2Writer(const DiskToWrite& disk, const Qcow2ToWrite& image, Sink& sink)
      : Qcow2Writer(disk, image, sink), blocks_(disk.zero_block), joined_(sink) {}

  uint64_t unit() const override { return blocks_.unit(); }

  Result<void> prepare(ByteSpan bytes, std::vector<std::byte>& prepared) const override {
    blocks_.mark(bytes, prepared);
    return {};
  }

  Result<void> write(uint64_t offset, ByteSpan bytes, ByteSpan prepared) override {
    const ByteSpan marks = blocks_.take_marks(bytes.size(), prepared);
    TRY(blocks_.each_run(marks, offset, bytes, cluster_size_,
                         [&](uint64_t at, ByteSpan run) { return store(at, run); }));
    return joined_.flush();
  }

 private:
  // Within one cluster.
  Result<void> store(uint64_t offset, ByteSpan bytes) {
    const uint64_t cluster = TRY(place(offset / cluster_size_));
    return joined_.add(cluster + offset % cluster_size_, bytes);
  }

  // Where the cluster of the disk lies, or lies from now on.
  Result<uint64_t> place(uint64_t cluster) {
    TRY(tables_.open(cluster));
    if (const uint64_t entry = tables_.entry(cluster)) return entry & ~kCopied;
    const uint64_t offset = TRY(clusters_.take_cluster());
    tables_.set(cluster, offset | kCopied);
    return offset;
  }

  DataBlocks blocks_;
  JoinedWrites joined_;
};

// Each cluster as a stream, where that is smaller.
class CompressedQcow2Writer final : public Qcow2Writer {
 public:
  using Qcow2Writer::Qcow2Writer;

  uint64_t unit() const override { return std::max(cluster_size_, kUsualUnit); }

  // For each cluster the length of its stream: 0 when it is zeros, the cluster's size when it is to
  // be stored as it is. Behind them, the streams.
  Result<void> prepare(ByteSpan bytes, std::vector<std::byte>& prepared) const override {
    const size_t clusters = div_round_up(bytes.size(), cluster_size_);
    prepared.assign(clusters * kLengthBytes, std::byte{});
    for (size_t i = 0; i < clusters; ++i) {
      const ByteSpan cluster = cluster_of(bytes, i);
      if (disk_.zero_block != 0 && is_zero(cluster)) continue;
      const size_t length = TRY(pack(cluster, prepared));
      store_be<uint32_t>(prepared, i * kLengthBytes,
                         static_cast<uint32_t>(length == 0 ? cluster_size_ : length));
    }
    return {};
  }

  Result<void> write(uint64_t offset, ByteSpan bytes, ByteSpan prepared) override {
    const size_t clusters = div_round_up(bytes.size(), cluster_size_);
    ByteSpan streams = prepared.subspan(clusters * kLengthBytes);
    for (size_t i = 0; i < clusters; ++i) {
      const size_t length = load_be<uint32_t>(prepared, i * kLengthBytes);
      if (length == 0) continue;
      const uint64_t cluster = offset / cluster_size_ + i;
      TRY(tables_.open(cluster));
      if (length == cluster_size_) {
        const uint64_t place = TRY(clusters_.take_cluster());
        tables_.set(cluster, place | kCopied);
        TRY(sink_.write(place, cluster_of(bytes, i)));
      } else {
        TRY(write_stream(cluster, streams.first(length)));
        streams = streams.subspan(length);
      }
    }
    return {};
  }

 private:
  static constexpr size_t kLengthBytes = 4;

  ByteSpan cluster_of(ByteSpan part, size_t index) const {
    const ByteSpan rest = part.subspan(index * cluster_size_);
    return rest.first(std::min<size_t>(rest.size(), cluster_size_));
  }

  // A cluster that the disk ends in is filled up with zeros.
  Result<size_t> pack(ByteSpan cluster, std::vector<std::byte>& out) const {
    if (cluster.size() == cluster_size_) return compress(image_.codec, cluster, cluster_size_, out);
    std::vector<std::byte> whole(cluster.begin(), cluster.end());
    whole.resize(cluster_size_);
    return compress(image_.codec, whole, cluster_size_, out);
  }

  Result<void> write_stream(uint64_t cluster, ByteSpan stream) {
    const uint64_t place = TRY(clusters_.take_bytes(stream.size()));
    if (place >> (62 - (image_.cluster_bits - 8)) != 0) {
      return fail(ErrorKind::kLimit, "compressed clusters of {} bytes cannot lie at byte {}",
                  cluster_size_, place);
    }
    tables_.set(cluster, compressed_entry(place, stream.size(), image_.cluster_bits));
    return sink_.write(place, stream);
  }
};

}  // namespace

Result<std::unique_ptr<ImageWriter>> write_qcow2(const DiskToWrite& disk, const Qcow2ToWrite& image,
                                                 Sink& sink) {
  const uint64_t cluster = uint64_t{1} << image.cluster_bits;
  const uint64_t tables = div_round_up(disk.size, cluster * (cluster / kEntryBytes));
  if (tables * kEntryBytes > Qcow2Header::kMaxL1Bytes) {
    return fail(ErrorKind::kUsage,
                "a disk of {} bytes is too large for the format with clusters of {} bytes: say a "
                "larger -o cluster_size",
                disk.size, cluster);
  }
  if (image.backing.size() + image.backing_format.size() > kMaxBacking ||
      (!image.backing.empty() && cluster < (2 << 10))) {
    return fail(ErrorKind::kUsage,
                "the backing file's name has {} bytes: {} fit, in clusters of 2 KiB and more",
                image.backing.size(), kMaxBacking);
  }
  if (image.compress) return std::make_unique<CompressedQcow2Writer>(disk, image, sink);
  return std::make_unique<PlainQcow2Writer>(disk, image, sink);
}

}  // namespace underlay
