// Small qcow2 images in memory, byte by byte, for tests that put one wrong field into them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "formats/codec.h"
#include "io/bytes.h"

namespace underlay {

// Layout: header cluster, L1 table, and then whatever is put, in the order it is put. Reference
// counts are left out unless they are put: no reader needs them.
class Qcow2Builder {
 public:
  using Bytes = std::vector<std::byte>;

  struct Options {
    uint32_t version = 3;
    uint32_t cluster_bits = 9;
    uint64_t size = 64 << 10;  // of the disk
    bool extended_l2 = false;
    bool external_data = false;
    Codec codec = Codec::kDeflate;
    uint32_t l1_entries = 0;  // 0: as many as the disk needs
  };
  explicit Qcow2Builder(const Options& options);

  // The file, and the content that it must show where the disk's size is at most kMaxTruth.
  Bytes file;
  Bytes truth;
  static constexpr uint64_t kMaxTruth = 64 << 20;

  uint64_t cluster_size() const { return uint64_t{1} << options_.cluster_bits; }
  uint64_t l1_offset() const { return cluster_size(); }

  // Guest clusters, by number.
  void put_data(uint64_t cluster, uint8_t seed);
  void put_zeros(uint64_t cluster, bool reserved);
  void put_compressed(uint64_t cluster, uint8_t seed);
  // `stream` becomes the stored form of a compressed cluster; the truth is left alone.
  void put_stream(uint64_t cluster, ByteSpan stream);
  void put_entry(uint64_t cluster, uint64_t entry, uint64_t bitmap = 0);

  // File offsets of the entries that map a guest cluster; the L2 table is made when it is missing.
  uint64_t l1_entry_offset(uint64_t cluster) const;
  uint64_t l2_entry_offset(uint64_t cluster);

  // Appends at the next cluster boundary; answers where.
  uint64_t append(ByteSpan bytes);
  uint64_t append_sectors(ByteSpan bytes);  // at the next sector

  void add_extension(uint32_t type, std::string_view data);
  void set_backing_name(std::string_view name);  // after the last extension

  struct Snapshot {
    std::string_view id;
    std::string_view name;
    uint64_t l1_offset = 0;
    uint32_t l1_entries = 0;
    uint64_t disk_size = 0;
    uint32_t extra_bytes = 16;
  };
  void put_snapshots(const std::vector<Snapshot>& snapshots);

  // Directory, tables and extension of persistent bitmaps, and the bit that makes them valid. The
  // bits are put before: append() tells where. Returns the offset of the directory.
  struct Bitmap {
    std::string_view name;
    std::vector<uint64_t> table;
    uint8_t granularity_bits = 16;
    uint32_t flags = 0;
    uint8_t type = 1;
    uint32_t extra_bytes = 0;
  };
  uint64_t put_bitmaps(const std::vector<Bitmap>& bitmaps);

  // Refcount table and blocks behind all that was put: every cluster of the file has refcount 1. A
  // refcount has 2^order bits; version 2 has 16. Returns the offset of the table.
  uint64_t put_refcounts(uint32_t order = 4);
  // REQUIRES: put_refcounts(), whose blocks cover the cluster.
  void set_refcount(uint64_t cluster, uint64_t refcount);
  uint64_t clusters() const { return div_round_up(file.size(), cluster_size()); }

  void set32(uint64_t offset, uint32_t value) { store_be(MutableByteSpan(file), offset, value); }
  void set64(uint64_t offset, uint64_t value) { store_be(MutableByteSpan(file), offset, value); }
  uint64_t get64(uint64_t offset) const { return load_be<uint64_t>(file, offset); }

  // A cluster's worth of bytes that differ from place to place, and that compress.
  Bytes pattern(uint64_t cluster, uint8_t seed) const;

 private:
  uint64_t entry_bytes() const { return options_.extended_l2 ? 16 : 8; }
  uint64_t entries() const { return cluster_size() / entry_bytes(); }
  void show(uint64_t cluster, ByteSpan bytes);

  Options options_;
  uint64_t extensions_end_;
  uint32_t refcount_order_ = 4;
};

// One cluster's stored form.
Qcow2Builder::Bytes pack(Codec codec, ByteSpan bytes, int window_bits = 12);

}  // namespace underlay
