#include "tests/support/qcow2_builder.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <stdexcept>

namespace underlay {
namespace {

constexpr uint64_t kCopied = uint64_t{1} << 63;
constexpr uint64_t kCompressed = uint64_t{1} << 62;
constexpr uint64_t kAllStored = 0xffffffff;

}  // namespace

Qcow2Builder::Bytes pack(Codec codec, ByteSpan bytes, int window_bits) {
  Qcow2Builder::Bytes packed(ZSTD_compressBound(bytes.size()) + 64);
  if (codec == Codec::kZstd) {
    packed.resize(ZSTD_compress(packed.data(), packed.size(), bytes.data(), bytes.size(), 3));
    return packed;
  }
  z_stream stream{};
  if (deflateInit2(&stream, 9, Z_DEFLATED, -window_bits, 9, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::runtime_error("deflateInit2");
  }
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  const int status = deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  if (status != Z_STREAM_END) throw std::runtime_error("deflate");
  return packed;
}

Qcow2Builder::Qcow2Builder(const Options& options) : options_(options) {
  const uint64_t needed = div_round_up(options.size, entries() * cluster_size());
  if (options_.l1_entries == 0) options_.l1_entries = static_cast<uint32_t>(needed);
  file.resize(cluster_size());
  append(Bytes(options_.l1_entries * 8ull));
  const bool zstd = options.codec == Codec::kZstd;
  set32(0, 0x514649fb);
  set32(4, options.version);
  set32(20, options.cluster_bits);
  set64(24, options.size);
  set32(36, options_.l1_entries);
  set64(40, l1_offset());
  extensions_end_ = 72;
  if (options.version >= 3) {
    set64(72, (options.external_data ? 4 : 0) | (zstd ? 8 : 0) | (options.extended_l2 ? 16 : 0));
    set32(96, 4);
    set32(100, 112);
    file[104] = std::byte{zstd};
    extensions_end_ = 112;
  }
  if (options.size <= kMaxTruth) truth.resize(options.size);
}

Qcow2Builder::Bytes Qcow2Builder::pattern(uint64_t cluster, uint8_t seed) const {
  Bytes bytes(cluster_size());
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = std::byte(static_cast<uint8_t>(seed + cluster * 7 + i / 32 * 5 + i % 3));
  }
  return bytes;
}

void Qcow2Builder::show(uint64_t cluster, ByteSpan bytes) {
  const uint64_t start = cluster * cluster_size();
  if (start >= truth.size()) return;
  const uint64_t length = std::min<uint64_t>(bytes.size(), truth.size() - start);
  std::copy_n(bytes.begin(), length, truth.begin() + static_cast<ptrdiff_t>(start));
}

void Qcow2Builder::put_data(uint64_t cluster, uint8_t seed) {
  const Bytes bytes = pattern(cluster, seed);
  (void)l2_entry_offset(cluster);
  const uint64_t host = options_.external_data ? cluster * cluster_size() : append(bytes);
  put_entry(cluster, host | kCopied, kAllStored);
  show(cluster, bytes);
}

void Qcow2Builder::put_zeros(uint64_t cluster, bool reserved) {
  (void)l2_entry_offset(cluster);
  // What lies in the place that is set aside must never show.
  const uint64_t host = reserved ? append(pattern(cluster, 0xee)) | kCopied : 0;
  put_entry(cluster, options_.extended_l2 ? host : host | 1, kAllStored << 32);
  show(cluster, Bytes(cluster_size()));
}

void Qcow2Builder::put_compressed(uint64_t cluster, uint8_t seed) {
  const Bytes bytes = pattern(cluster, seed);
  put_stream(cluster, pack(options_.codec, bytes));
  show(cluster, bytes);
}

void Qcow2Builder::put_stream(uint64_t cluster, ByteSpan stream) {
  (void)l2_entry_offset(cluster);
  const uint64_t host = append_sectors(stream);
  const uint64_t sectors = div_round_up(stream.size(), 512);
  const uint32_t shift = 62 - (options_.cluster_bits - 8);
  put_entry(cluster, kCompressed | ((sectors - 1) << shift) | host);
}

void Qcow2Builder::put_entry(uint64_t cluster, uint64_t entry, uint64_t bitmap) {
  const uint64_t at = l2_entry_offset(cluster);
  set64(at, entry);
  if (options_.extended_l2) set64(at + 8, bitmap);
}

uint64_t Qcow2Builder::l1_entry_offset(uint64_t cluster) const {
  return l1_offset() + cluster / entries() * 8;
}

uint64_t Qcow2Builder::l2_entry_offset(uint64_t cluster) {
  const uint64_t l1_entry = l1_entry_offset(cluster);
  if (get64(l1_entry) == 0) set64(l1_entry, append(Bytes(cluster_size())) | kCopied);
  return (get64(l1_entry) & ~kCopied) + cluster % entries() * entry_bytes();
}

uint64_t Qcow2Builder::append(ByteSpan bytes) {
  file.resize(round_up(file.size(), cluster_size()).value());
  return append_sectors(bytes);
}

uint64_t Qcow2Builder::append_sectors(ByteSpan bytes) {
  file.resize(round_up(file.size(), 512).value());
  const uint64_t at = file.size();
  file.insert(file.end(), bytes.begin(), bytes.end());
  return at;
}

void Qcow2Builder::add_extension(uint32_t type, std::string_view data) {
  set32(extensions_end_, type);
  set32(extensions_end_ + 4, static_cast<uint32_t>(data.size()));
  std::ranges::copy(as_bytes(data), file.begin() + static_cast<ptrdiff_t>(extensions_end_ + 8));
  extensions_end_ += 8 + round_up(data.size(), 8).value();
}

void Qcow2Builder::set_backing_name(std::string_view name) {
  const uint64_t at = extensions_end_ + 8;  // behind the end of the extensions
  set64(8, at);
  set32(16, static_cast<uint32_t>(name.size()));
  std::ranges::copy(as_bytes(name), file.begin() + static_cast<ptrdiff_t>(at));
}

void Qcow2Builder::put_snapshots(const std::vector<Snapshot>& snapshots) {
  Bytes table;
  for (const Snapshot& snapshot : snapshots) {
    const size_t at = table.size();
    const size_t text = at + 40 + snapshot.extra_bytes;
    table.resize(round_up(text + snapshot.id.size() + snapshot.name.size(), 8).value());
    const MutableByteSpan entry = MutableByteSpan(table).subspan(at);
    store_be(entry, 0, snapshot.l1_offset);
    store_be(entry, 8, snapshot.l1_entries);
    store_be(entry, 12, static_cast<uint16_t>(snapshot.id.size()));
    store_be(entry, 14, static_cast<uint16_t>(snapshot.name.size()));
    store_be(entry, 36, snapshot.extra_bytes);
    if (snapshot.extra_bytes >= 16) store_be(entry, 48, snapshot.disk_size);
    auto out = table.begin() + static_cast<ptrdiff_t>(text);
    out = std::ranges::copy(as_bytes(snapshot.id), out).out;
    std::ranges::copy(as_bytes(snapshot.name), out);
  }
  set32(60, static_cast<uint32_t>(snapshots.size()));
  set64(64, append(table));
}

uint64_t Qcow2Builder::put_bitmaps(const std::vector<Bitmap>& bitmaps) {
  Bytes directory;
  for (const Bitmap& bitmap : bitmaps) {
    Bytes table(bitmap.table.size() * 8);
    for (size_t i = 0; i < bitmap.table.size(); ++i) {
      store_be(MutableByteSpan(table), i * 8, bitmap.table[i]);
    }
    const size_t at = directory.size();
    const size_t name = at + 24 + bitmap.extra_bytes;
    directory.resize(round_up(name + bitmap.name.size(), 8).value());
    const MutableByteSpan entry = MutableByteSpan(directory).subspan(at);
    store_be(entry, 0, append(table));
    store_be(entry, 8, static_cast<uint32_t>(bitmap.table.size()));
    store_be(entry, 12, bitmap.flags);
    store_be(entry, 16, bitmap.type);
    store_be(entry, 17, bitmap.granularity_bits);
    store_be(entry, 18, static_cast<uint16_t>(bitmap.name.size()));
    store_be(entry, 20, bitmap.extra_bytes);
    std::ranges::copy(as_bytes(bitmap.name), directory.begin() + static_cast<ptrdiff_t>(name));
  }
  const uint64_t place = append(directory);
  Bytes extension(24);
  store_be(MutableByteSpan(extension), 0, static_cast<uint32_t>(bitmaps.size()));
  store_be(MutableByteSpan(extension), 8, uint64_t{directory.size()});
  store_be(MutableByteSpan(extension), 16, place);
  add_extension(0x23852875, as_text(extension));
  set64(88, get64(88) | 1);
  return place;
}

uint64_t Qcow2Builder::put_refcounts(uint32_t order) {
  refcount_order_ = order;
  const uint64_t in_block = cluster_size() * 8 >> order;
  const uint64_t used = clusters();
  uint64_t blocks = 0;
  uint64_t table_clusters = 0;
  while (blocks * in_block < used + blocks + table_clusters) {
    ++blocks;
    table_clusters = div_round_up(blocks * 8, cluster_size());
  }
  const uint64_t table = append(Bytes(table_clusters * cluster_size()));
  for (uint64_t i = 0; i < blocks; ++i) set64(table + i * 8, append(Bytes(cluster_size())));
  set64(48, table);
  set32(56, static_cast<uint32_t>(table_clusters));
  if (options_.version >= 3) set32(96, order);
  for (uint64_t cluster = 0; cluster < clusters(); ++cluster) set_refcount(cluster, 1);
  return table;
}

void Qcow2Builder::set_refcount(uint64_t cluster, uint64_t refcount) {
  const uint64_t in_block = cluster_size() * 8 >> refcount_order_;
  const uint64_t block = get64(get64(48) + cluster / in_block * 8);
  const uint64_t bit = cluster % in_block << refcount_order_;
  const uint64_t at = block + bit / 8;
  const uint32_t bits = 1u << refcount_order_;
  if (bits >= 8) {  // big-endian
    for (uint32_t i = 0; i < bits / 8; ++i) {
      file[at + i] = std::byte(static_cast<uint8_t>(refcount >> (bits - 8 - i * 8)));
    }
    return;
  }
  const auto mask = static_cast<uint8_t>((1u << bits) - 1);
  const auto shift = static_cast<unsigned>(bit % 8);
  file[at] &= std::byte(static_cast<uint8_t>(~(mask << shift)));
  file[at] |= std::byte(static_cast<uint8_t>((refcount & mask) << shift));
}

}  // namespace underlay
