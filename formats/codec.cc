#include "formats/codec.h"

#include <libdeflate.h>
#include <zlib.h>
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include <array>
#include <memory>

namespace underlay {
namespace {

// 8 MiB: above what writers choose for clusters of at most 2 MiB. A frame that asks for a larger
// window is refused, since the decoder would allocate it.
constexpr int kZstdMaxWindowLog = 23;

// Of a thread's stream buffer: several times the clusters that writers make (64 KiB).
constexpr size_t kKeptStream = 256 << 10;

struct FreeLibdeflate {
  void operator()(libdeflate_decompressor* d) const { libdeflate_free_decompressor(d); }
};
struct FreeZstd {
  void operator()(ZSTD_DCtx* d) const { ZSTD_freeDCtx(d); }
};

Failure out_of_memory() { return fail(ErrorKind::kLimit, "no memory for a decompressor"); }

// Goes on to the end of a stream whose cluster is full: only there is the checksum.
int inflate_rest(z_stream& stream) {
  std::array<Bytef, 4096> dropped;
  int status = Z_OK;
  while (status == Z_OK) {
    stream.next_out = dropped.data();
    stream.avail_out = static_cast<uInt>(dropped.size());
    status = inflate(&stream, Z_NO_FLUSH);
  }
  return status;
}

// zlib's verdict, which decides where libdeflate gives none: a stream that goes on past the end of
// the cluster is valid, and without a checksum also one that lacks its end although the cluster is
// full.
Result<void> inflate_exact(Codec codec, ByteSpan in, MutableByteSpan out) {
  const bool has_checksum = codec == Codec::kZlib;
  z_stream stream{};
  if (inflateInit2(&stream, has_checksum ? MAX_WBITS : -MAX_WBITS) != Z_OK) return out_of_memory();
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data()));
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  int status = inflate(&stream, Z_FINISH);
  const size_t missing = stream.avail_out;
  const bool full = (status == Z_STREAM_END || status == Z_BUF_ERROR) && missing == 0;
  if (full && has_checksum && status != Z_STREAM_END) status = inflate_rest(stream);
  inflateEnd(&stream);
  if (full && (status == Z_STREAM_END || !has_checksum)) return {};
  if (missing == 0) {
    return fail(ErrorKind::kMalformed,
                "zlib stream has no end with the right checksum: it is damaged");
  }
  return fail(ErrorKind::kMalformed, "deflate stream gave {} of {} bytes: it is damaged",
              out.size() - missing, out.size());
}

Result<void> inflate_fast(Codec codec, ByteSpan in, MutableByteSpan out) {
  thread_local const std::unique_ptr<libdeflate_decompressor, FreeLibdeflate> decompressor(
      libdeflate_alloc_decompressor());
  if (!decompressor) return out_of_memory();
  size_t used = 0;
  const auto run =
      codec == Codec::kZlib ? libdeflate_zlib_decompress_ex : libdeflate_deflate_decompress_ex;
  const libdeflate_result result =
      run(decompressor.get(), in.data(), in.size(), out.data(), out.size(), &used, nullptr);
  if (result == LIBDEFLATE_SUCCESS) return {};
  return inflate_exact(codec, in, out);
}

Result<void> unzstd(ByteSpan in, MutableByteSpan out) {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeZstd> context(ZSTD_createDCtx());
  if (!context) return out_of_memory();
  ZSTD_DCtx_reset(context.get(), ZSTD_reset_session_only);
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kZstdMaxWindowLog);
  ZSTD_inBuffer input{in.data(), in.size(), 0};
  ZSTD_outBuffer output{out.data(), out.size(), 0};
  while (output.pos < output.size) {
    const size_t before_in = input.pos;
    const size_t before_out = output.pos;
    const size_t status = ZSTD_decompressStream(context.get(), &output, &input);
    if (ZSTD_isError(status) != 0) {
      return fail(ErrorKind::kMalformed, "zstd stream is damaged: {}", ZSTD_getErrorName(status));
    }
    if (input.pos == before_in && output.pos == before_out) break;
  }
  if (output.pos == output.size) return {};
  return fail(ErrorKind::kMalformed, "zstd stream gave {} of {} bytes: it is damaged", output.pos,
              output.size);
}

}  // namespace

Result<void> decompress(Codec codec, ByteSpan in, MutableByteSpan out) {
  return codec == Codec::kZstd ? unzstd(in, out) : inflate_fast(codec, in, out);
}

StreamBuffer::StreamBuffer(size_t size) {
  thread_local std::unique_ptr<std::byte[]> kept;
  if (size > kKeptStream) {
    own_ = std::make_unique_for_overwrite<std::byte[]>(size);
  } else if (!kept) {
    kept = std::make_unique_for_overwrite<std::byte[]>(kKeptStream);
  }
  bytes_ = {own_ ? own_.get() : kept.get(), size};
}

}  // namespace underlay
