// A remote source for tests of the cache: counts what is read of it, and fails or waits when told.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/cache/group_layout.h"
#include "io/memory_source.h"

namespace underlay::test {

class CountingSource final : public Source {
 public:
  // `id`: content_id().
  explicit CountingSource(std::vector<std::byte> bytes, std::optional<std::string> id = "id",
                          std::string name = "memory")
      : memory_(std::move(bytes), std::move(name)),
        id_(std::move(id)),
        blocks_(div_round_up(memory_.size(), kCacheBlock)) {}

  const std::string& name() const override { return memory_.name(); }
  uint64_t size() const override { return memory_.size(); }
  std::optional<std::string> content_id() const override { return id_; }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override {
    ++requests_;
    if (before_read) before_read();
    if (fails) return in_file(fail_errno(EIO, "cannot read"), name(), offset);
    for (uint64_t at = offset; at < offset + out.size(); at += kCacheBlock) {
      ++blocks_[static_cast<size_t>(at / kCacheBlock)];
    }
    bytes_ += out.size();
    return memory_.read_at(offset, out);
  }

  Result<void> check_unchanged() const override {
    if (changed) return in_file(fail(ErrorKind::kIo, "changed"), name());
    return {};
  }
  std::string lasting_name() const override { return lasting.value_or(name()); }

  std::optional<std::string> lasting;  // lasting_name(), unless it is the name
  std::function<void()> before_read;   // on the reading thread
  std::atomic<bool> fails = false;
  std::atomic<bool> changed = false;

  uint64_t requests() const { return requests_; }
  uint64_t bytes() const { return bytes_; }
  // How often the block was read that was read most often.
  unsigned most_reads_of_a_block() const {
    unsigned most = 0;
    for (const auto& count : blocks_) most = std::max(most, count.load());
    return most;
  }

 private:
  MemorySource memory_;
  std::optional<std::string> id_;
  mutable std::vector<std::atomic<unsigned>> blocks_;
  mutable std::atomic<uint64_t> requests_ = 0;
  mutable std::atomic<uint64_t> bytes_ = 0;
};

}  // namespace underlay::test
