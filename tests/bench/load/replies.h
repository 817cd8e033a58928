// Takes a stream of simple replies apart, in whatever pieces it arrives. Payload is looked at where
// the receive left it, and never kept.
#pragma once

#include <array>
#include <cstdint>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay::bench {

class Replies {
 public:
  // What a piece of the stream has brought.
  struct Piece {
    uint64_t handle = 0;
    uint64_t at = 0;    // where in the reply's payload these bytes lie
    ByteSpan payload;   // may be empty
    bool last = false;  // the reply is complete with it
  };

  // `size`: the payload of every reply.
  explicit Replies(uint64_t size) : size_(size) {}

  // Takes the next piece off the front of `input`; false when input is used up before there is one.
  Result<bool> next(ByteSpan& input, Piece& piece);

  // For payload that is dropped unseen: how much of a header, or of a payload, comes next (one of
  // them is 0); and the piece that `length` bytes of payload (at most payload_left()) were.
  size_t header_left() const { return payload_left_ == 0 ? kHeader - header_bytes_ : 0; }
  uint64_t payload_left() const { return payload_left_; }
  Piece skip(size_t length);

 private:
  static constexpr size_t kHeader = 16;
  Result<void> begin(ByteSpan header);

  uint64_t size_;
  std::array<std::byte, kHeader> header_{};  // of a reply whose header came in two pieces
  size_t header_bytes_ = 0;
  uint64_t handle_ = 0;
  uint64_t payload_left_ = 0;
};

}  // namespace underlay::bench
