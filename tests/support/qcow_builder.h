// Small qcow images of version 1 in memory, byte by byte (QEMU's block/qcow.c), for tests that put
// one wrong field into them; and their opening.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/open_chain.h"
#include "io/bytes.h"
#include "io/confined_open.h"
#include "io/source.h"

namespace underlay::qcow::test {

using Bytes = std::vector<std::byte>;

// Layout: header, backing file name, L1 table, and then whatever is put, in the order it is put.
class QcowBuilder {
 public:
  struct Options {
    uint8_t cluster_bits = 9;
    uint8_t l2_bits = 6;
    uint64_t size = 96 << 10;  // of the disk
    std::string_view backing_name = {};
  };
  explicit QcowBuilder(const Options& options);

  // The file, and the content that it must show.
  Bytes file;
  Bytes truth;

  uint64_t cluster_size() const { return uint64_t{1} << options_.cluster_bits; }

  // Guest clusters, by number.
  void put_data(uint64_t cluster, uint8_t seed);
  void put_compressed(uint64_t cluster, uint8_t seed);
  // `stream` becomes the stored form of a compressed cluster; the truth is left alone.
  void put_stream(uint64_t cluster, ByteSpan stream);
  void put_entry(uint64_t cluster, uint64_t entry) { set64(l2_entry_offset(cluster), entry); }

  // File offsets of the entries that map a guest cluster; the L2 table is made when it is missing.
  uint64_t l1_entry_offset(uint64_t cluster) const;
  uint64_t l2_entry_offset(uint64_t cluster);

  void set8(uint64_t offset, uint8_t value) { store_be(MutableByteSpan(file), offset, value); }
  void set32(uint64_t offset, uint32_t value) { store_be(MutableByteSpan(file), offset, value); }
  void set64(uint64_t offset, uint64_t value) { store_be(MutableByteSpan(file), offset, value); }
  uint64_t get64(uint64_t offset) const { return load_be<uint64_t>(file, offset); }

  // A cluster's worth of bytes that differ from place to place, and that compress.
  Bytes pattern(uint64_t cluster, uint8_t seed) const;

 private:
  uint64_t append(ByteSpan bytes, uint64_t alignment);
  void show(uint64_t cluster, ByteSpan bytes);

  Options options_;
  uint64_t l1_;
};

// Plain and compressed clusters of many places; the last thing in the file is needed.
QcowBuilder sample();

// A raw deflate stream.
Bytes deflated(ByteSpan bytes);

// The files that images name.
class MemoryFiles final : public NamedFiles {
 public:
  std::map<std::string, Bytes, std::less<>> files;
  Result<OpenedFile> open(const std::string& namer, std::string_view name) const override;
};

// An opened image, and what outlives it.
struct Opened {
  std::unique_ptr<Caches> caches = std::make_unique<Caches>();
  Result<OpenedDisk> disk = fail(ErrorKind::kUsage, "not opened");

  const Disk* operator->() const { return disk.value().disk.get(); }
  // The line of the refusal, "" when there was none.
  std::string refusal() const { return disk ? "" : disk.error().to_string(); }
};

Opened open(std::shared_ptr<const Source> source, const OpenOptions& options = {},
            const NamedFiles& files = MemoryFiles());
Opened open(const Bytes& image, const OpenOptions& options = {},
            const NamedFiles& files = MemoryFiles());

Result<Bytes> read(const Opened& opened, uint64_t offset, size_t length);

// The whole disk, cluster by cluster of 512 bytes: how many could be read. What is read must be
// `truth`.
size_t count_true_sectors(const Opened& opened, const Bytes& truth);

}  // namespace underlay::qcow::test
