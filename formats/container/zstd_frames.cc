#include "formats/container/zstd_frames.h"

#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zstd.h>

namespace underlay::zstd {
namespace {

constexpr uint64_t kFooterBytes = 9;
constexpr uint64_t kSkippableHeaderBytes = 8;
constexpr uint32_t kSkippableMagic = 0x184d2a5e;
constexpr uint32_t kSeekableMagic = 0x8f92eab1;
constexpr unsigned kChecksumFlag = 0x80;
constexpr unsigned kReservedBits = 0x7c;

struct FreeContext {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

class ZstdCodec final : public BlockCodec {
 public:
  explicit ZstdCodec(bool has_checksums) : has_checksums_(has_checksums) {}

  Result<void> unpack(const PackedBlock& block, ByteSpan stored,
                      MutableByteSpan out) const override {
    const std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
    if (!context) return fail(ErrorKind::kLimit, "no memory for a decompressor");
    const size_t got =
        ZSTD_decompressDCtx(context.get(), out.data(), out.size(), stored.data(), stored.size());
    if (ZSTD_isError(got) != 0) {
      return fail(ErrorKind::kMalformed, "a zstd frame is damaged: {}", ZSTD_getErrorName(got));
    }
    if (got != out.size()) {
      return fail(ErrorKind::kMalformed, "a zstd frame gave {} of {} bytes: it is damaged", got,
                  out.size());
    }
    if (has_checksums_ && static_cast<uint32_t>(XXH64(out.data(), out.size(), 0)) != block.check) {
      return fail(ErrorKind::kMalformed,
                  "a zstd frame has not the checksum that the seek table states: it is damaged");
    }
    return {};
  }

 private:
  bool has_checksums_;
};

Failure wrong_table(std::string_view why) {
  return fail(ErrorKind::kMalformed, "the zstd seek table {}: the file is damaged", why);
}

}  // namespace

Result<std::optional<SeekTable>> read_seek_table(const Source& file) {
  const uint64_t size = file.size();
  if (size < kFooterBytes + kSkippableHeaderBytes) return std::optional<SeekTable>();
  std::array<std::byte, kFooterBytes> footer;
  TRY(file.read_at(size - kFooterBytes, footer));
  if (load_le<uint32_t>(footer, 5) != kSeekableMagic) return std::optional<SeekTable>();

  const uint64_t frames = load_le<uint32_t>(footer, 0);
  const auto descriptor = load_le<uint8_t>(footer, 4);
  if ((descriptor & kReservedBits) != 0) return wrong_table("has reserved bits set");
  if (frames > kMaxPackedBlocks) {
    return fail(ErrorKind::kLimit, "the zstd seek table has {} frames, more than {}", frames,
                kMaxPackedBlocks);
  }
  SeekTable table;
  table.has_checksums = (descriptor & kChecksumFlag) != 0;
  const uint64_t entry_bytes = table.has_checksums ? 12 : 8;
  const uint64_t content = frames * entry_bytes + kFooterBytes;
  if (content + kSkippableHeaderBytes > size) return wrong_table("is larger than the file");
  const uint64_t table_at = size - content - kSkippableHeaderBytes;
  std::vector<std::byte> bytes(static_cast<size_t>(kSkippableHeaderBytes + frames * entry_bytes));
  TRY(file.read_at(table_at, bytes));
  if (load_le<uint32_t>(bytes, 0) != kSkippableMagic || load_le<uint32_t>(bytes, 4) != content) {
    return wrong_table("does not begin where its number of frames says");
  }
  uint64_t stored = 0;
  for (uint64_t i = 0; i < frames; ++i) {
    const auto at = static_cast<size_t>(kSkippableHeaderBytes + i * entry_bytes);
    const auto packed = load_le<uint32_t>(bytes, at);
    const uint32_t check = table.has_checksums ? load_le<uint32_t>(bytes, at + 8) : 0;
    TRY(table.blocks.add(stored, packed, load_le<uint32_t>(bytes, at + 4), check, table_at));
    stored += packed;
  }
  if (stored != table_at) return wrong_table("does not describe all frames of the file");
  return std::optional<SeekTable>(std::move(table));
}

std::unique_ptr<const BlockCodec> make_codec(bool has_checksums) {
  return std::make_unique<ZstdCodec>(has_checksums);
}

}  // namespace underlay::zstd
