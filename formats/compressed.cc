#include "formats/compressed.h"

#include "formats/container/xz_blocks.h"
#include "formats/container/zstd_frames.h"

namespace underlay {
namespace {

constexpr uint32_t kZstdMagic = 0xfd2fb528;
constexpr uint32_t kZstdSkippable = 0x184d2a50;  // the low four bits may be any
constexpr std::string_view kGzipMagic = "\x1f\x8b\x08";
constexpr std::string_view kXzMagic{
    "\xfd"
    "7zXZ\0",
    6};

// What the operator does with a file that cannot be served as it is.
Failure refuse(const Source& packed, std::string_view why, std::string_view unpacker,
               std::string_view other_way) {
  const std::string name = printable(packed.name());
  // A member of an archive must come out of it first.
  const bool is_member = &packed.file() != &packed;
  const std::string from = is_member ? fmt::format("tar -xf {}, and {} for its member",
                                                   printable(packed.file().name()), unpacker)
                                     : fmt::format("{} {}", unpacker, name);
  return in_file(
      fail(ErrorKind::kUnsupported, "{}; unpack it: {}{}", why, from, is_member ? "" : other_way),
      packed.name());
}

Result<std::shared_ptr<const Source>> open_xz(std::shared_ptr<const Source> packed,
                                              Caches& caches) {
  auto blocks = xz::read_index(*packed);
  if (!blocks && blocks.error().kind == ErrorKind::kLimit) {
    return refuse(*packed,
                  "is compressed with xz, and a block must be unpacked whole for the smallest "
                  "read, but " +
                      blocks.error().message,
                  "xz -dk",
                  fmt::format(", or make blocks that can be served: xz -dc {} | xz -T0 "
                              "--block-size=16MiB > NEW.xz",
                              printable(packed->name())));
  }
  if (!blocks) return in_file(std::move(blocks).error(), packed->name());
  return std::make_shared<const UnpackedSource>(std::move(packed), *std::move(blocks),
                                                xz::make_codec(), caches);
}

Result<std::shared_ptr<const Source>> open_zstd(std::shared_ptr<const Source> packed,
                                                Caches& caches) {
  constexpr std::string_view kUnpacker = "zstd -dk";
  auto table = zstd::read_seek_table(*packed);
  if (!table && table.error().kind == ErrorKind::kLimit) {
    return refuse(*packed,
                  "is compressed with zstd, and a frame must be unpacked whole for the smallest "
                  "read, but " +
                      table.error().message,
                  kUnpacker, "");
  }
  if (!table) return in_file(std::move(table).error(), packed->name());
  if (!*table) {
    return refuse(*packed,
                  "is compressed with zstd and has no seek table (the seekable format of zstd), so "
                  "it can only be read from its start",
                  kUnpacker, "");
  }
  const bool has_checksums = (*table)->has_checksums;
  return std::make_shared<const UnpackedSource>(std::move(packed), std::move((*table)->blocks),
                                                zstd::make_codec(has_checksums), caches);
}

}  // namespace

std::optional<Compression> find_compression(ByteSpan head) {
  const std::string_view text = as_text(head);
  if (text.starts_with(kGzipMagic)) return Compression::kGzip;
  if (text.starts_with(kXzMagic)) return Compression::kXz;
  if (head.size() < sizeof(uint32_t)) return std::nullopt;
  const auto magic = load_le<uint32_t>(head, 0);
  if (magic == kZstdMagic || (magic & 0xfffffff0) == kZstdSkippable) return Compression::kZstd;
  return std::nullopt;
}

Result<std::shared_ptr<const Source>> open_compressed(Compression compression,
                                                      std::shared_ptr<const Source> packed,
                                                      Caches& caches) {
  switch (compression) {
    case Compression::kXz:
      return open_xz(std::move(packed), caches);
    case Compression::kZstd:
      return open_zstd(std::move(packed), caches);
    case Compression::kGzip:
      break;
  }
  return refuse(*packed, "is compressed with gzip, so it can only be read from its start",
                "gzip -dk", "");
}

}  // namespace underlay
