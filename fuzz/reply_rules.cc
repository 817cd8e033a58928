#include "fuzz/reply_rules.h"

#include <algorithm>
#include <array>

#include "fuzz/rules.h"
#include "io/memory_source.h"
#include "server/block_status.h"
#include "server/limits.h"
#include "server/reply.h"

namespace underlay {
namespace {

constexpr uint64_t kStripe = 1 << 20;
constexpr uint64_t kStripes = 64;
constexpr uint64_t kDamagedStripe = 50;

// Stripes of every kind, which differ from layer to layer.
class Stripes final : public Reader {
 public:
  explicit Stripes(unsigned layer) : layer_(layer), source_(std::vector<std::byte>(kStripe)) {}

  uint64_t size() const override { return kStripes * kStripe + 100; }
  std::vector<const Source*> sources() const override { return {&source_}; }
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor) const override {
    const uint64_t stripe = offset / kStripe;
    if (stripe == kDamagedStripe) return fail(ErrorKind::kMalformed, "a damaged table");
    Extent extent;
    extent.length = std::min(length, kStripe - offset % kStripe);
    switch ((stripe >> 2 * layer_) % 4) {
      case 0:
        extent.kind = Extent::Kind::kData;
        extent.source = &source_;
        extent.source_offset = offset % kStripe;
        break;
      case 1:
      case 2:
        extent.kind = Extent::Kind::kZero;
        extent.reserved = (stripe >> 2 * layer_) % 4 == 1;
        break;
      default:
        extent.kind = Extent::Kind::kParent;
    }
    return extent;
  }

 private:
  unsigned layer_;
  MemorySource source_;
};

class DirtyStripes final : public DirtyBitmap {
 public:
  Result<DirtyRun> run_at(uint64_t offset, uint64_t length) const override {
    const uint64_t stripe = offset / kStripe;
    if (stripe == kDamagedStripe) return fail(ErrorKind::kMalformed, "a damaged bitmap");
    return DirtyRun{.length = std::min(length, kStripe - offset % kStripe),
                    .dirty = stripe % 3 == 0};
  }
};

// One chunk (or simple reply) as a client reads it.
struct Chunk {
  bool simple = false;
  bool last = true;
  nbd::Chunk type{};
  uint64_t payload = 0;  // bytes that belong to it
  uint32_t error = 0;    // simple
};

Chunk parse_chunk(ByteReader& reader, const Request& request, const Negotiated& negotiated) {
  Chunk chunk;
  const auto magic = reader.be<uint32_t>();
  chunk.simple = !negotiated.structured;
  if (chunk.simple) {
    require(magic == nbd::kSimpleReplyMagic, "a simple reply has its magic");
    chunk.error = reader.be<uint32_t>();
    require(reader.be<uint64_t>() == request.cookie, "a reply has the request's cookie");
    require(reader.ok(), "a reply is as long as its header");
    return chunk;
  }
  require(magic == (negotiated.extended ? nbd::kExtendedReplyMagic : nbd::kStructuredReplyMagic),
          "a chunk has the magic that was negotiated");
  chunk.last = (reader.be<uint16_t>() & nbd::kReplyDone) != 0;
  chunk.type = static_cast<nbd::Chunk>(reader.be<uint16_t>());
  require(reader.be<uint64_t>() == request.cookie, "a reply has the request's cookie");
  if (negotiated.extended) {
    require(reader.be<uint64_t>() == request.offset, "an extended reply has the request's offset");
    chunk.payload = reader.be<uint64_t>();
  } else {
    chunk.payload = reader.be<uint32_t>();
  }
  require(reader.ok(), "a reply is as long as its header");
  return chunk;
}

void check_read(const Request& request, const Negotiated& negotiated, const ReplyWriter& writer) {
  std::array<std::byte, ReplyWriter::kMaxHeader> room;
  const size_t size = writer.put_data_header(room, request.offset, request.length, true);
  require(size <= room.size(), "a header fits");
  ByteReader reader(ByteSpan(room).first(size));
  const Chunk chunk = parse_chunk(reader, request, negotiated);
  if (chunk.simple) return require(chunk.error == 0 && reader.remaining() == 0, "data follows");
  require(chunk.type == nbd::Chunk::kOffsetData && chunk.last &&
              chunk.payload == reader.remaining() + request.length,
          "a chunk of data has its offset and the data");
  require(reader.be<uint64_t>() == request.offset, "data lies where it was asked for");
  const size_t hole = writer.put_hole(room, request.offset, request.length, false);
  reader = ByteReader(ByteSpan(room).first(hole));
  const Chunk zeros = parse_chunk(reader, request, negotiated);
  require(
      zeros.type == nbd::Chunk::kOffsetHole && !zeros.last && zeros.payload == reader.remaining(),
      "a hole has its offset and length");
  require(reader.be<uint64_t>() == request.offset && reader.be<uint32_t>() == request.length,
          "a hole lies where it was asked for");
}

void check_extents(const std::vector<StatusExtent>& extents, const Request& request) {
  require(!extents.empty() && extents.size() <= limits::kStatusExtents,
          "a context has one extent to kStatusExtents");
  uint64_t length = 0;
  for (size_t i = 0; i < extents.size(); ++i) {
    require(extents[i].length > 0 && range_within(length, extents[i].length, request.length),
            "extents end with the request");
    require(i == 0 || extents[i].flags != extents[i - 1].flags, "neighbours differ");
    length += extents[i].length;
  }
}

void check_context(uint32_t id, const std::vector<StatusExtent>& extents, const Request& request,
                   const Negotiated& negotiated, const ReplyWriter& writer) {
  check_extents(extents, request);
  std::vector<std::byte> room(ReplyWriter::kMaxHeader +
                              extents.size() * writer.status_extent_bytes());
  const size_t size = writer.put_status(room, id, extents, true);
  ByteReader reader(ByteSpan(room).first(size));
  const Chunk chunk = parse_chunk(reader, request, negotiated);
  require(chunk.last && chunk.payload == reader.remaining(), "a chunk is as long as it says");
  require(reader.be<uint32_t>() == id, "extents are of their context");
  if (negotiated.extended) require(reader.be<uint32_t>() == extents.size(), "extents are counted");
  for (const StatusExtent& extent : extents) {
    const bool wide = negotiated.extended;
    require((wide ? reader.be<uint64_t>() : reader.be<uint32_t>()) == extent.length &&
                (wide ? reader.be<uint64_t>() : reader.be<uint32_t>()) == extent.flags,
            "extents arrive as they are");
  }
  require(reader.ok() && reader.remaining() == 0, "a chunk is as long as its extents");
}

void check_status(const Request& request, const Negotiated& negotiated, const ReplyWriter& writer) {
  const bool only_one = (request.flags & nbd::kCommandReqOne) != 0;
  const auto status =
      block_status(fuzzed_export(), negotiated, request.offset, request.length, only_one);
  if (!status) return check_error(status.error());
  if (negotiated.allocation) {
    check_context(Negotiated::kAllocationId, status->allocation, request, negotiated, writer);
    require(!only_one || status->allocation.size() == 1, "REQ_ONE gets one extent");
  }
  if (negotiated.allocation_depth) {
    check_context(Negotiated::kAllocationDepthId, status->depth, request, negotiated, writer);
  }
  require(status->bitmaps.size() == (negotiated.dirty_bitmaps == 0 ? 0 : 1),
          "the bitmaps that were negotiated are told");
  for (const BlockStatus::Bitmap& bitmap : status->bitmaps) {
    check_context(bitmap.id, bitmap.extents, request, negotiated, writer);
  }
}

}  // namespace

const Export& fuzzed_export() {
  static Caches caches;
  static const auto disk = [] {
    std::vector<Layer> layers;
    layers.push_back({.reader = std::make_unique<Stripes>(0), .path = "top"});
    layers.push_back({.reader = std::make_unique<Stripes>(1), .path = "parent"});
    return std::make_shared<const Disk>(std::move(layers), caches);
  }();
  static const Export made("disk", "a disk", disk, "",
                           {{.name = "b", .bitmap = std::make_shared<const DirtyStripes>()}});
  return made;
}

void check_refusal(const Request& request, const Negotiated& negotiated, nbd::WireError error) {
  const ReplyWriter writer(negotiated, request);
  const std::string long_message(1000, 'x');
  for (const std::string_view message :
       {std::string_view("refused"), std::string_view(long_message)}) {
    std::array<std::byte, ReplyWriter::kMaxError> room;
    const size_t size = writer.put_error(room, error, message);
    require(size <= room.size(), "an error fits");
    ByteReader reader(ByteSpan(room).first(size));
    const Chunk chunk = parse_chunk(reader, request, negotiated);
    if (chunk.simple) {
      require(chunk.error == static_cast<uint32_t>(error), "an error is the error");
      continue;
    }
    require(chunk.type == nbd::Chunk::kError && chunk.last && chunk.payload == reader.remaining(),
            "an error is the last chunk");
    require(reader.be<uint32_t>() == static_cast<uint32_t>(error), "an error is the error");
    require(reader.be<uint16_t>() == reader.remaining(), "a message is as long as it says");
  }
}

void check_replies(const Request& request, const Negotiated& negotiated) {
  const ReplyWriter writer(negotiated, request);
  std::array<std::byte, ReplyWriter::kMaxHeader> room;
  const size_t size = writer.put_success(room);
  ByteReader reader(ByteSpan(room).first(size));
  const Chunk done = parse_chunk(reader, request, negotiated);
  require(done.last && done.payload == 0 && reader.remaining() == 0, "success has no payload");
  if (request.command == nbd::Command::kRead) check_read(request, negotiated, writer);
  if (request.command == nbd::Command::kBlockStatus) check_status(request, negotiated, writer);
}

}  // namespace underlay
