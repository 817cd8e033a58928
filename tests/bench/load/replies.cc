#include "tests/bench/load/replies.h"

#include <algorithm>
#include <cstring>

#include "server/nbd_protocol.h"

namespace underlay::bench {

Result<bool> Replies::next(ByteSpan& input, Piece& piece) {
  if (input.empty()) return false;
  if (payload_left_ == 0) {
    if (header_bytes_ == 0 && input.size() >= kHeader) {
      TRY(begin(input.first(kHeader)));
      input = input.subspan(kHeader);
    } else {
      const size_t taken = std::min(kHeader - header_bytes_, input.size());
      std::memcpy(header_.data() + header_bytes_, input.data(), taken);
      header_bytes_ += taken;
      input = input.subspan(taken);
      if (header_bytes_ < kHeader) return false;
      header_bytes_ = 0;
      TRY(begin(header_));
    }
  }
  const auto length = static_cast<size_t>(std::min<uint64_t>(payload_left_, input.size()));
  piece = skip(length);
  piece.payload = input.first(length);
  input = input.subspan(length);
  return true;
}

Replies::Piece Replies::skip(size_t length) {
  const uint64_t at = size_ - payload_left_;
  payload_left_ -= length;
  return {.handle = handle_, .at = at, .payload = {}, .last = payload_left_ == 0};
}

Result<void> Replies::begin(ByteSpan header) {
  if (load_be<uint32_t>(header, 0) != nbd::kSimpleReplyMagic) {
    return fail(ErrorKind::kMalformed, "magic {:#x} instead of a simple reply's",
                load_be<uint32_t>(header, 0));
  }
  if (const auto error = load_be<uint32_t>(header, 4); error != 0) {
    return fail(ErrorKind::kIo, "the server has answered a read with error {}", error);
  }
  handle_ = load_be<uint64_t>(header, 8);
  payload_left_ = size_;
  return {};
}

}  // namespace underlay::bench
