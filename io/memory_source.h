// Bytes in memory as a Source: for tests and fuzzers.
#pragma once

#include <string>
#include <vector>

#include "io/source.h"

namespace underlay {

class MemorySource final : public Source {
 public:
  explicit MemorySource(std::vector<std::byte> bytes, std::string name = "memory");

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return bytes_.size(); }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override;
  size_t read_cached(uint64_t offset, MutableByteSpan out) const override;

 private:
  std::vector<std::byte> bytes_;
  std::string name_;
};

}  // namespace underlay
