#include "tests/support/qcow_builder.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "io/memory_source.h"
#include "tests/support/qcow2_builder.h"

namespace underlay::qcow::test {
namespace {

constexpr uint64_t kHeader = 48;
constexpr uint64_t kCompressed = uint64_t{1} << 63;

}  // namespace

// Version 1 and 2 deflate alike.
Bytes deflated(ByteSpan bytes) { return pack(Codec::kDeflate, bytes, 12); }

QcowBuilder::QcowBuilder(const Options& options)
    : file(kHeader), truth(options.size), options_(options) {
  set32(0, 0x514649fb);
  set32(4, 1);
  set64(24, options.size);
  set8(32, options.cluster_bits);
  set8(33, options.l2_bits);
  if (!options.backing_name.empty()) {
    set64(8, append(as_bytes(options.backing_name), 1));
    set32(16, static_cast<uint32_t>(options.backing_name.size()));
  }
  const uint64_t entries = div_round_up(options.size, cluster_size() << options.l2_bits);
  l1_ = append(Bytes(entries * 8), 8);
  set64(40, l1_);
}

Bytes QcowBuilder::pattern(uint64_t cluster, uint8_t seed) const {
  Bytes bytes(cluster_size());
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = std::byte(static_cast<uint8_t>(1 + (seed + cluster * 7 + i / 32 * 5 + i % 3) % 255));
  }
  return bytes;
}

uint64_t QcowBuilder::append(ByteSpan bytes, uint64_t alignment) {
  const uint64_t at = div_round_up(file.size(), alignment) * alignment;
  file.resize(at);
  file.insert(file.end(), bytes.begin(), bytes.end());
  return at;
}

void QcowBuilder::show(uint64_t cluster, ByteSpan bytes) {
  const uint64_t start = cluster * cluster_size();
  const uint64_t length = std::min<uint64_t>(bytes.size(), truth.size() - start);
  std::copy_n(bytes.begin(), length, truth.begin() + static_cast<ptrdiff_t>(start));
}

uint64_t QcowBuilder::l1_entry_offset(uint64_t cluster) const {
  return l1_ + (cluster >> options_.l2_bits) * 8;
}

uint64_t QcowBuilder::l2_entry_offset(uint64_t cluster) {
  const uint64_t entries = uint64_t{1} << options_.l2_bits;
  const uint64_t entry = l1_entry_offset(cluster);
  if (get64(entry) == 0) {
    const uint64_t table = append(Bytes(entries * 8), cluster_size());
    set64(entry, table);
  }
  return get64(entry) + cluster % entries * 8;
}

void QcowBuilder::put_data(uint64_t cluster, uint8_t seed) {
  const Bytes bytes = pattern(cluster, seed);
  const uint64_t entry = l2_entry_offset(cluster);
  const uint64_t at = append(bytes, cluster_size());
  set64(entry, at);
  show(cluster, bytes);
}

void QcowBuilder::put_compressed(uint64_t cluster, uint8_t seed) {
  const Bytes bytes = pattern(cluster, seed);
  put_stream(cluster, deflated(bytes));
  show(cluster, bytes);
}

void QcowBuilder::put_stream(uint64_t cluster, ByteSpan stream) {
  const uint64_t entry = l2_entry_offset(cluster);
  const uint64_t at = append(stream, 1);
  set64(entry, kCompressed | uint64_t{stream.size()} << (63 - options_.cluster_bits) | at);
}

QcowBuilder sample() {
  QcowBuilder builder({});
  builder.put_data(0, 1);
  builder.put_compressed(1, 2);
  builder.put_data(70, 3);
  builder.put_compressed(71, 4);
  builder.put_compressed(130, 5);
  builder.put_data(131, 6);
  return builder;
}

Result<OpenedFile> MemoryFiles::open(const std::string& namer, std::string_view name) const {
  const auto found = files.find(name);
  if (found == files.end()) return in_file(fail(ErrorKind::kNotFound, "not there"), namer);
  return OpenedFile{.source = std::make_shared<MemorySource>(found->second, std::string(name)),
                    .path = std::string(name)};
}

Opened open(std::shared_ptr<const Source> source, const OpenOptions& options,
            const NamedFiles& files) {
  OpenOptions as_qcow = options;
  if (as_qcow.format.empty()) as_qcow.format = "qcow";
  Opened opened;
  opened.disk = open_disk(OpenedFile{.source = std::move(source), .path = "image"}, as_qcow, files,
                          *opened.caches);
  return opened;
}

Opened open(const Bytes& image, const OpenOptions& options, const NamedFiles& files) {
  return open(std::make_shared<MemorySource>(image, "image"), options, files);
}

Result<Bytes> read(const Opened& opened, uint64_t offset, size_t length) {
  Bytes bytes(length, std::byte{0xa5});
  TRY(opened->read(offset, bytes));
  return bytes;
}

size_t count_true_sectors(const Opened& opened, const Bytes& truth) {
  constexpr size_t kSector = 512;
  size_t good = 0;
  for (size_t at = 0; at + kSector <= truth.size(); at += kSector) {
    const auto bytes = read(opened, at, kSector);
    if (!bytes) {
      CHECK(bytes.error().kind != ErrorKind::kWouldBlock);
      continue;
    }
    ++good;
    CHECK(std::equal(bytes->begin(), bytes->end(), truth.begin() + static_cast<ptrdiff_t>(at)));
  }
  return good;
}

}  // namespace underlay::qcow::test
