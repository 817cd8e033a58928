// A part of a source as a Source of its own: a file within a tar archive.
#pragma once

#include <memory>
#include <string>

#include "io/source.h"

namespace underlay {

// Has no descriptor, since its offsets are not those of the whole: place_of() leads to one.
class WindowSource final : public Source {
 public:
  // The `size` bytes of `whole` from `start` on. `name` is for messages.
  // REQUIRES: range_within(start, size, whole->size()).
  WindowSource(std::shared_ptr<const Source> whole, uint64_t start, uint64_t size,
               std::string name);

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override;
  size_t read_cached(uint64_t offset, MutableByteSpan out) const override;
  bool in_memory(uint64_t offset, uint64_t length) const override {
    return whole_->in_memory(start_ + offset, length);
  }
  SourcePlace place_of(uint64_t offset) const override { return whole_->place_of(start_ + offset); }
  const Source& file() const override { return whole_->file(); }
  void prefetch(uint64_t offset, uint64_t length) const override {
    whole_->prefetch(start_ + offset, length);
  }
  SourceRun run_at(uint64_t offset, uint64_t length) const override {
    return whole_->run_at(start_ + offset, length);
  }
  Result<void> check_unchanged() const override { return whole_->check_unchanged(); }
  bool was_replaced() const override { return whole_->was_replaced(); }
  std::optional<FileIdentity> identity() const override;

 private:
  std::shared_ptr<const Source> whole_;
  uint64_t start_;
  uint64_t size_;
  std::string name_;
};

}  // namespace underlay
