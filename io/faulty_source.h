// A Source whose reads fail on demand: proves that no failure becomes data.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "io/source.h"

namespace underlay {

// Passes reads on to `inner`, except that read_at() fails with EIO where a test asked for it. Has
// no file descriptor and never answers from memory, so that every read can be made to fail.
class FaultySource final : public Source {
 public:
  explicit FaultySource(std::shared_ptr<const Source> inner) : inner_(std::move(inner)) {}

  // The n-th read_at() from now on fails, once; 0 is the next one. Negative: none fails.
  void fail_read(int64_t n) { countdown_ = n; }
  // Every read that touches [offset, offset + length) fails, until called with length 0.
  void fail_range(uint64_t offset, uint64_t length) {
    bad_offset_ = offset;
    bad_length_ = length;
  }
  // How often read_at() was called.
  uint64_t reads() const { return reads_; }

  const std::string& name() const override { return inner_->name(); }
  uint64_t size() const override { return inner_->size(); }
  std::optional<FileIdentity> identity() const override { return inner_->identity(); }
  Result<void> check_unchanged() const override { return inner_->check_unchanged(); }
  SourceRun run_at(uint64_t offset, uint64_t length) const override {
    return inner_->run_at(offset, length);
  }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override;

 private:
  std::shared_ptr<const Source> inner_;
  mutable std::atomic<int64_t> countdown_ = -1;
  mutable std::atomic<uint64_t> reads_ = 0;
  std::atomic<uint64_t> bad_offset_ = 0;
  std::atomic<uint64_t> bad_length_ = 0;
};

}  // namespace underlay
