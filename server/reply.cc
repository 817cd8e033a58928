#include "server/reply.h"

#include <algorithm>
#include <cstring>

namespace underlay {
namespace {

// Fields one after the other.
class FieldWriter {
 public:
  explicit FieldWriter(MutableByteSpan out) : out_(out) {}
  template <class T>
  void put(T value) {
    store_be<T>(out_, size_, value);
    size_ += sizeof(T);
  }
  size_t size() const { return size_; }

 private:
  MutableByteSpan out_;
  size_t size_ = 0;
};

}  // namespace

size_t ReplyWriter::put_simple(MutableByteSpan out, nbd::WireError error) const {
  FieldWriter fields(out);
  fields.put<uint32_t>(nbd::kSimpleReplyMagic);
  fields.put<uint32_t>(static_cast<uint32_t>(error));
  fields.put<uint64_t>(request_.cookie);
  return fields.size();
}

size_t ReplyWriter::put_chunk(MutableByteSpan out, nbd::Chunk type, uint64_t payload,
                              bool last) const {
  FieldWriter fields(out);
  fields.put<uint32_t>(negotiated_.extended ? nbd::kExtendedReplyMagic
                                            : nbd::kStructuredReplyMagic);
  fields.put<uint16_t>(last ? nbd::kReplyDone : 0);
  fields.put<uint16_t>(static_cast<uint16_t>(type));
  fields.put<uint64_t>(request_.cookie);
  if (negotiated_.extended) {
    fields.put<uint64_t>(request_.offset);
    fields.put<uint64_t>(payload);
  } else {
    fields.put<uint32_t>(static_cast<uint32_t>(payload));
  }
  return fields.size();
}

size_t ReplyWriter::put_success(MutableByteSpan out) const {
  // Extended headers replace simple replies altogether; structured ones only those to reads and
  // block status, but a chunk is allowed for all and needs no distinction.
  if (!structured()) return put_simple(out, nbd::WireError::kNone);
  return put_chunk(out, nbd::Chunk::kNone, 0, true);
}

size_t ReplyWriter::put_error(MutableByteSpan out, nbd::WireError error,
                              std::string_view message) const {
  if (!structured()) return put_simple(out, error);
  constexpr size_t kFixed = 6;
  message = message.substr(0, kMaxError - kMaxHeader - kFixed);
  const size_t header = put_chunk(out, nbd::Chunk::kError, kFixed + message.size(), true);
  FieldWriter fields(out.subspan(header));
  fields.put<uint32_t>(static_cast<uint32_t>(error));
  fields.put<uint16_t>(static_cast<uint16_t>(message.size()));
  std::memcpy(out.data() + header + kFixed, message.data(), message.size());
  return header + kFixed + message.size();
}

size_t ReplyWriter::put_data_header(MutableByteSpan out, uint64_t offset, uint64_t length,
                                    bool last) const {
  if (!structured()) return put_simple(out, nbd::WireError::kNone);
  const size_t header = put_chunk(out, nbd::Chunk::kOffsetData, sizeof(uint64_t) + length, last);
  FieldWriter fields(out.subspan(header));
  fields.put<uint64_t>(offset);
  return header + fields.size();
}

size_t ReplyWriter::put_hole(MutableByteSpan out, uint64_t offset, uint64_t length,
                             bool last) const {
  const size_t header = put_chunk(out, nbd::Chunk::kOffsetHole, 12, last);
  FieldWriter fields(out.subspan(header));
  fields.put<uint64_t>(offset);
  fields.put<uint32_t>(static_cast<uint32_t>(length));  // a read has at most 32 MiB
  return header + fields.size();
}

size_t ReplyWriter::put_status(MutableByteSpan out, uint32_t context,
                               const std::vector<StatusExtent>& extents, bool last) const {
  const uint64_t fixed = negotiated_.extended ? 8 : 4;
  const size_t header =
      put_chunk(out, negotiated_.extended ? nbd::Chunk::kBlockStatusExt : nbd::Chunk::kBlockStatus,
                fixed + extents.size() * status_extent_bytes(), last);
  FieldWriter fields(out.subspan(header));
  fields.put<uint32_t>(context);
  if (negotiated_.extended) fields.put<uint32_t>(static_cast<uint32_t>(extents.size()));
  for (const StatusExtent& extent : extents) {
    if (negotiated_.extended) {
      fields.put<uint64_t>(extent.length);
      fields.put<uint64_t>(extent.flags);
    } else {
      // A request with compact headers is shorter than 4 GiB, and extents end with it.
      fields.put<uint32_t>(static_cast<uint32_t>(extent.length));
      fields.put<uint32_t>(static_cast<uint32_t>(extent.flags));
    }
  }
  return header + fields.size();
}

}  // namespace underlay
