// How often, and as what, the structures of a qcow2 image use each cluster of its file. Counts one
// window of the file at a time, so that memory does not grow with it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace underlay {

enum class Qcow2Use : uint8_t {
  kHeader,
  kL1Table,
  kL2Table,
  kRefcountTable,
  kRefcountBlock,
  kSnapshotTable,
  kBitmap,  // directory, table or bits
  kLuksHeader,
  kData,
  kCompressed,
};

std::string_view qcow2_use_name(Qcow2Use use);  // "L2 table"
std::string_view qcow2_use_code(Qcow2Use use);  // "l2-table"

// One cluster's uses.
class Qcow2Uses {
 public:
  Qcow2Uses() = default;

  void add(Qcow2Use use, uint64_t times) {
    const uint64_t left = kMaxCount - count();
    word_ = (word_ | 1u << (kCountBits + static_cast<unsigned>(use))) +
            static_cast<uint32_t>(times < left ? times : left);
  }
  uint64_t count() const { return word_ & kMaxCount; }
  bool has(Qcow2Use use) const {
    return (word_ >> (kCountBits + static_cast<unsigned>(use)) & 1) != 0;
  }
  // Do they exclude each other? Only L2 tables, data and compressed data are ever shared, each with
  // its like.
  bool overlap() const;
  std::string names() const;  // "L2 table, data"

  bool operator==(const Qcow2Uses&) const = default;

  // More are not told apart: no image that is not made for it has so many.
  static constexpr unsigned kCountBits = 22;
  static constexpr uint64_t kMaxCount = (1 << kCountBits) - 1;

 private:
  uint32_t word_ = 0;  // kCountBits of count, a bit for each Qcow2Use
};

class Qcow2References {
 public:
  // For files of `clusters` clusters, `window` of them at a time.
  Qcow2References(uint64_t clusters, uint64_t window);

  // Forgets everything, and counts the clusters from `first` on.
  void begin(uint64_t first);

  uint64_t first() const { return first_; }
  uint64_t end() const { return first_ + uses_.size(); }  // behind the window, or the file

  // Of clusters in the file.
  void add(Qcow2Use use, uint64_t cluster, uint64_t times) {
    if (cluster < first_) return;
    if (cluster - first_ < uses_.size()) {
      uses_[cluster - first_].add(use, times);
    } else if (!next_ || cluster < *next_) {
      next_ = cluster;
    }
  }

  // REQUIRES: first() <= cluster < end().
  const Qcow2Uses& at(uint64_t cluster) const { return uses_[cluster - first_]; }

  // The first cluster behind the window that is used.
  std::optional<uint64_t> next() const { return next_; }

 private:
  uint64_t clusters_;
  uint64_t window_;
  uint64_t first_ = 0;
  std::vector<Qcow2Uses> uses_;
  std::optional<uint64_t> next_;
};

}  // namespace underlay
