#include "formats/writing/compressor.h"

#include <libdeflate.h>
#include <zlib.h>
#include <zstd.h>

#include <cassert>
#include <memory>

namespace underlay {
namespace {

// What the libraries recommend, and qemu-img takes.
constexpr int kDeflateLevel = 6;
constexpr int kZstdLevel = ZSTD_CLEVEL_DEFAULT;
// As qemu-img's.
constexpr int kQcow2WindowBits = 12;
constexpr int kQcow2MemoryLevel = 9;

struct FreeLibdeflate {
  void operator()(libdeflate_compressor* c) const { libdeflate_free_compressor(c); }
};
struct FreeZstd {
  void operator()(ZSTD_CCtx* c) const { ZSTD_freeCCtx(c); }
};

Failure out_of_memory() { return fail(ErrorKind::kLimit, "no memory for a compressor"); }

// A thread's zlib state, which is set up once.
class Deflater {
 public:
  Deflater()
      : is_ready_(deflateInit2(&stream_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -kQcow2WindowBits,
                               kQcow2MemoryLevel, Z_DEFAULT_STRATEGY) == Z_OK) {}
  ~Deflater() {
    if (is_ready_) deflateEnd(&stream_);
  }
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;

  bool is_ready() const { return is_ready_; }
  // 0 when the stream does not fit.
  size_t run(ByteSpan in, MutableByteSpan out) {
    deflateReset(&stream_);
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data()));
    stream_.avail_in = static_cast<uInt>(in.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(out.size());
    return deflate(&stream_, Z_FINISH) == Z_STREAM_END ? out.size() - stream_.avail_out : 0;
  }

 private:
  z_stream stream_{};
  bool is_ready_;
};

Result<size_t> deflate_into(ByteSpan in, MutableByteSpan out) {
  thread_local Deflater deflater;
  if (!deflater.is_ready()) return out_of_memory();
  return deflater.run(in, out);
}

Result<size_t> zlib_into(ByteSpan in, MutableByteSpan out) {
  thread_local const std::unique_ptr<libdeflate_compressor, FreeLibdeflate> compressor(
      libdeflate_alloc_compressor(kDeflateLevel));
  if (!compressor) return out_of_memory();
  return libdeflate_zlib_compress(compressor.get(), in.data(), in.size(), out.data(), out.size());
}

Result<size_t> zstd_into(ByteSpan in, MutableByteSpan out) {
  thread_local const std::unique_ptr<ZSTD_CCtx, FreeZstd> context(ZSTD_createCCtx());
  if (!context) return out_of_memory();
  const size_t size =
      ZSTD_compressCCtx(context.get(), out.data(), out.size(), in.data(), in.size(), kZstdLevel);
  return ZSTD_isError(size) != 0 ? 0 : size;
}

Result<size_t> compress_into(Codec codec, ByteSpan in, MutableByteSpan out) {
  switch (codec) {
    case Codec::kZlib:
      return zlib_into(in, out);
    case Codec::kZstd:
      return zstd_into(in, out);
    case Codec::kDeflate:
      break;
  }
  return deflate_into(in, out);
}

}  // namespace

Result<size_t> compress(Codec codec, ByteSpan in, size_t limit, std::vector<std::byte>& out) {
  assert(limit > 0);
  const size_t before = out.size();
  out.resize(before + limit - 1);
  const auto size = compress_into(codec, in, MutableByteSpan(out).subspan(before));
  out.resize(before + size.value_or(0));
  return size;
}

}  // namespace underlay
