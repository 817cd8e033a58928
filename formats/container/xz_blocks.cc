#include "formats/container/xz_blocks.h"

#include <lzma.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>
#include <vector>

namespace underlay::xz {
namespace {

constexpr uint64_t kMaxIndexMemory = 128 << 20;    // about 16 bytes for each block
constexpr uint64_t kMaxDecoderMemory = 128 << 20;  // xz -9 needs 65 MiB
constexpr uint64_t kMaxIndexBytes = 32 << 20;      // at most 18 for each block
constexpr size_t kMaxStreams = 10000;              // xz -T makes one of many blocks
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

// A stream's index, which stands at its end and tells how long all of it is.
struct Stream {
  explicit Stream(lzma_index* decoded) : index(decoded) {}
  Stream(Stream&& other) noexcept
      : index(std::exchange(other.index, nullptr)), start(other.start), check(other.check) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  Stream& operator=(Stream&&) = delete;
  ~Stream() { lzma_index_end(index, nullptr); }

  lzma_index* index;
  uint64_t start = 0;  // of the stream in the file
  lzma_check check = LZMA_CHECK_NONE;
};

// Finds the streams from the last one to the first. liblzma has a decoder for that as well, but the
// time it takes grows with the square of their number.
class StreamFinder {
 public:
  explicit StreamFinder(const Source& file) : file_(file), end_(file.size()) {}

  // The last one first.
  Result<std::vector<Stream>> find() {
    std::vector<Stream> streams;
    uint64_t blocks = 0;
    for (TRY(skip_padding()); end_ > 0; TRY(skip_padding())) {
      if (streams.size() == kMaxStreams) {
        return fail(ErrorKind::kLimit, "it has more than {} xz streams", kMaxStreams);
      }
      streams.push_back(TRY(previous()));
      blocks += lzma_index_block_count(streams.back().index);
      if (blocks > kMaxPackedBlocks) {
        return fail(ErrorKind::kLimit, "it has more than {} xz blocks", kMaxPackedBlocks);
      }
    }
    return streams;
  }

 private:
  // Zeros between streams, in multiples of four bytes. (Behind the last one, too.)
  Result<void> skip_padding() {
    std::vector<std::byte> buffer(kStep);
    uint64_t padding = 0;
    while (end_ > 0) {
      const auto length = static_cast<size_t>(std::min<uint64_t>(kStep, end_));
      const MutableByteSpan part = MutableByteSpan(buffer).first(length);
      TRY(file_.read_at(end_ - length, part));
      const auto last =
          std::find_if(part.rbegin(), part.rend(), [](std::byte b) { return b != std::byte{0}; });
      const auto zeros = static_cast<uint64_t>(last - part.rbegin());
      end_ -= zeros;
      padding += zeros;
      if (last != part.rend()) break;
    }
    if (padding % 4 != 0) return index_failure(LZMA_DATA_ERROR);
    return {};
  }

  // The stream that ends at end_, which moves to its start.
  Result<Stream> previous() {
    const lzma_stream_flags footer = TRY(flags_at_end());
    const uint64_t index_bytes = footer.backward_size;
    if (index_bytes > kMaxIndexBytes) return index_failure(LZMA_MEMLIMIT_ERROR);
    Stream stream(TRY(index_at_end(static_cast<size_t>(index_bytes))));
    const uint64_t blocks_bytes = lzma_index_total_size(stream.index);
    if (blocks_bytes + LZMA_STREAM_HEADER_SIZE > end_) return index_failure(LZMA_DATA_ERROR);
    end_ -= blocks_bytes + LZMA_STREAM_HEADER_SIZE;
    std::array<uint8_t, LZMA_STREAM_HEADER_SIZE> bytes;
    TRY(read(end_, bytes));
    lzma_stream_flags header{};
    if (const auto status = lzma_stream_header_decode(&header, bytes.data()); status != LZMA_OK) {
      return index_failure(status == LZMA_FORMAT_ERROR ? LZMA_DATA_ERROR : status);
    }
    if (lzma_stream_flags_compare(&header, &footer) != LZMA_OK) {
      return index_failure(LZMA_DATA_ERROR);
    }
    stream.start = end_;
    stream.check = footer.check;
    return stream;
  }

  Result<lzma_stream_flags> flags_at_end() {
    if (end_ < 2 * LZMA_STREAM_HEADER_SIZE) return index_failure(LZMA_BUF_ERROR);
    end_ -= LZMA_STREAM_HEADER_SIZE;
    std::array<uint8_t, LZMA_STREAM_HEADER_SIZE> bytes;
    TRY(read(end_, bytes));
    lzma_stream_flags footer{};
    const lzma_ret status = lzma_stream_footer_decode(&footer, bytes.data());
    if (status != LZMA_OK) {
      return index_failure(status == LZMA_FORMAT_ERROR ? LZMA_BUF_ERROR : status);
    }
    return footer;
  }

  Result<lzma_index*> index_at_end(size_t length) {
    if (length > end_) return index_failure(LZMA_DATA_ERROR);
    end_ -= length;
    std::vector<uint8_t> bytes(length);
    TRY(read(end_, bytes));
    lzma_index* index = nullptr;
    uint64_t memory = kMaxIndexMemory;
    size_t at = 0;
    const lzma_ret status =
        lzma_index_buffer_decode(&index, &memory, nullptr, bytes.data(), &at, bytes.size());
    if (status != LZMA_OK) return index_failure(status);
    if (at == bytes.size()) return index;
    lzma_index_end(index, nullptr);
    return index_failure(LZMA_DATA_ERROR);
  }

  Result<void> read(uint64_t offset, std::span<uint8_t> out) const {
    return file_.read_at(offset, std::as_writable_bytes(out));
  }

  const Source& file_;
  uint64_t end_;  // of what is not looked at yet
};

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
  const std::vector<Stream> streams = TRY(StreamFinder(file).find());
  PackedBlocks blocks;
  for (auto stream = streams.rbegin(); stream != streams.rend(); ++stream) {
    if (!lzma_check_is_supported(stream->check)) {
      return fail(ErrorKind::kUnsupported, "its xz blocks have a check of the unknown kind {}",
                  static_cast<int>(stream->check));
    }
    lzma_index_iter iter;
    lzma_index_iter_init(&iter, stream->index);
    while (!lzma_index_iter_next(&iter, LZMA_INDEX_ITER_NONEMPTY_BLOCK)) {
      TRY(blocks.add(stream->start + iter.block.compressed_file_offset, iter.block.total_size,
                     iter.block.uncompressed_size, static_cast<uint32_t>(stream->check),
                     file.size()));
    }
  }
  return blocks;
}

std::unique_ptr<const BlockCodec> make_codec() { return std::make_unique<XzCodec>(); }

}  // namespace underlay::xz
