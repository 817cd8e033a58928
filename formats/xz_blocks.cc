#include "formats/xz_blocks.h"

#include <lzma.h>

#include <algorithm>

namespace underlay::xz {
namespace {

constexpr uint64_t kMaxIndexMemory = 128 << 20;    // about 16 bytes for each block
constexpr uint64_t kMaxDecoderMemory = 128 << 20;  // xz -9 needs 65 MiB
constexpr size_t kStep = 64 << 10;

std::string_view reason_of(lzma_ret status) {
  switch (status) {
    case LZMA_MEM_ERROR:
      return "no memory left";
    case LZMA_MEMLIMIT_ERROR:
      return "its index is too large";
    case LZMA_FORMAT_ERROR:
      return "it is no xz file";
    case LZMA_OPTIONS_ERROR:
      return "it has options that this liblzma does not know";
    case LZMA_DATA_ERROR:
      return "it is damaged";
    default:
      return "it is truncated or damaged";
  }
}

Failure index_failure(lzma_ret status) {
  return fail(status == LZMA_MEMLIMIT_ERROR ? ErrorKind::kLimit : ErrorKind::kMalformed,
              "the index of its xz blocks cannot be read: {}", reason_of(status));
}

struct Index {
  ~Index() { lzma_index_end(value, nullptr); }
  lzma_index* value = nullptr;
};
struct Stream {
  ~Stream() { lzma_end(&value); }
  lzma_stream value = LZMA_STREAM_INIT;
};

Result<void> decode_index(const Source& file, Index& index) {
  Stream stream;
  lzma_ret status =
      lzma_file_info_decoder(&stream.value, &index.value, kMaxIndexMemory, file.size());
  std::vector<std::byte> buffer(kStep);
  uint64_t at = 0;
  while (status == LZMA_OK || status == LZMA_SEEK_NEEDED) {
    if (status == LZMA_SEEK_NEEDED) {
      at = stream.value.seek_pos;
      stream.value.avail_in = 0;
    }
    if (stream.value.avail_in == 0) {
      const auto length = static_cast<size_t>(std::min<uint64_t>(kStep, file.size() - at));
      TRY(file.read_at(at, MutableByteSpan(buffer).first(length)));
      at += length;
      stream.value.next_in = reinterpret_cast<const uint8_t*>(buffer.data());
      stream.value.avail_in = length;
    }
    status = lzma_code(&stream.value, at == file.size() ? LZMA_FINISH : LZMA_RUN);
  }
  if (status != LZMA_STREAM_END) return index_failure(status);
  return {};
}

struct Filters {
  Filters() { value[0].id = LZMA_VLI_UNKNOWN; }
  ~Filters() { lzma_filters_free(value, nullptr); }
  Filters(const Filters&) = delete;
  Filters& operator=(const Filters&) = delete;
  lzma_filter value[LZMA_FILTERS_MAX + 1];
};

Failure damaged() { return fail(ErrorKind::kMalformed, "an xz block is damaged"); }

class XzCodec final : public BlockCodec {
 public:
  // block.check: the kind of check of its stream.
  Result<void> unpack(const PackedBlock& block, ByteSpan stored,
                      MutableByteSpan out) const override {
    const auto* in = reinterpret_cast<const uint8_t*>(stored.data());
    if (stored.empty() || in[0] == 0) return damaged();
    Filters filters;
    lzma_block header{};
    header.version = 1;
    header.check = static_cast<lzma_check>(block.check);
    header.filters = filters.value;
    header.header_size = lzma_block_header_size_decode(in[0]);
    if (header.header_size > stored.size()) return damaged();
    if (lzma_block_header_decode(&header, nullptr, in) != LZMA_OK) {
      filters.value[0].id = LZMA_VLI_UNKNOWN;  // it has freed what it had
      return fail(ErrorKind::kMalformed, "the header of an xz block is damaged or unknown");
    }
    const uint64_t memory = lzma_raw_decoder_memusage(filters.value);
    if (memory > kMaxDecoderMemory) {
      return fail(ErrorKind::kLimit, "an xz block needs {} bytes of memory, more than {}", memory,
                  kMaxDecoderMemory);
    }
    size_t in_at = header.header_size;
    size_t out_at = 0;
    const lzma_ret status =
        lzma_block_buffer_decode(&header, nullptr, in, &in_at, stored.size(),
                                 reinterpret_cast<uint8_t*>(out.data()), &out_at, out.size());
    if (status == LZMA_MEM_ERROR) return fail(ErrorKind::kLimit, "no memory left");
    if (status != LZMA_OK || in_at != stored.size() || out_at != out.size()) return damaged();
    return {};
  }
};

}  // namespace

Result<PackedBlocks> read_index(const Source& file) {
  Index index;
  TRY(decode_index(file, index));
  PackedBlocks blocks;
  lzma_index_iter iter;
  lzma_index_iter_init(&iter, index.value);
  while (!lzma_index_iter_next(&iter, LZMA_INDEX_ITER_NONEMPTY_BLOCK)) {
    const lzma_check check = iter.stream.flags->check;
    if (!lzma_check_is_supported(check)) {
      return fail(ErrorKind::kUnsupported, "its xz blocks have a check of the unknown kind {}",
                  static_cast<int>(check));
    }
    TRY(blocks.add(iter.block.compressed_file_offset, iter.block.total_size,
                   iter.block.uncompressed_size, static_cast<uint32_t>(check), file.size()));
  }
  return blocks;
}

std::unique_ptr<const BlockCodec> make_codec() { return std::make_unique<XzCodec>(); }

}  // namespace underlay::xz
