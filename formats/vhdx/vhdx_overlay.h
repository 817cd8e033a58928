// What a replayed log changes in a file, held in memory: the file itself is only read.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "io/source.h"

namespace underlay::vhdx {

// Writes that were not made: sectors and ranges of zeros, later ones over earlier ones. Memory: the
// bytes of the sectors, and some for each write.
class Overlay {
 public:
  static constexpr uint64_t kSectorBytes = 4096;

  // REQUIRES: multiples of kSectorBytes; no end beyond 2^63.
  void put_sector(uint64_t offset, ByteSpan bytes);
  void put_zeros(uint64_t offset, uint64_t length);
  // The file reaches at least to here: what lies between its own end and this is zeros.
  void extend_to(uint64_t size);

  uint64_t size() const { return size_; }  // 0: it was not extended

  // What lies at a place, and for how long.
  struct Piece {
    enum class Kind : uint8_t { kUntouched, kZeros, kSector };
    Kind kind = Kind::kUntouched;
    uint64_t length = 0;
    ByteSpan bytes;  // kSector: `length` bytes
  };
  // REQUIRES: length > 0; offset + length does not wrap.
  Piece piece_at(uint64_t offset, uint64_t length) const;

 private:
  struct Write {
    uint64_t end = 0;
    std::optional<size_t> data;  // where its bytes are in data_; nullopt: zeros
  };
  void clear(uint64_t offset, uint64_t end);

  std::map<uint64_t, Write> writes_;  // by offset; they do not overlap
  std::vector<std::byte> data_;
  uint64_t size_ = 0;
};

// The file as it would be had the log been replayed on it. Has no file descriptor: who knows the
// file's must not pass the overlay by. Thread-safe, as a Source is.
class ReplayedSource final : public Source {
 public:
  ReplayedSource(std::shared_ptr<const Source> file, Overlay overlay)
      : file_(std::move(file)), overlay_(std::move(overlay)) {}

  const std::string& name() const override { return file_->name(); }
  uint64_t size() const override { return std::max(file_->size(), overlay_.size()); }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override;
  Result<void> check_unchanged() const override { return file_->check_unchanged(); }
  bool was_replaced() const override { return file_->was_replaced(); }

  // As Overlay::piece_at(), but what lies behind the end of the file is zeros.
  // REQUIRES: length > 0, offset + length <= size().
  Overlay::Piece piece_at(uint64_t offset, uint64_t length) const;

 private:
  std::shared_ptr<const Source> file_;
  Overlay overlay_;
};

}  // namespace underlay::vhdx
