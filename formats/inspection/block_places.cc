#include "formats/inspection/block_places.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace underlay {
namespace {

// The first ones of all that are told, behind `after`.
class FirstBlocks {
 public:
  FirstBlocks(std::optional<BlockPlace> after, size_t count) : after_(after), count_(count) {}

  void add(const BlockPlace& block) {
    if (after_ && block <= *after_) return;
    if (limit_ && block > *limit_) return;
    blocks_.push_back(block);
    if (blocks_.size() == 2 * count_) drop_half();
  }
  // In order. Fewer than there are when are_all() is false.
  const std::vector<BlockPlace>& sorted() {
    std::sort(blocks_.begin(), blocks_.end());
    return blocks_;
  }
  bool are_all() const { return !limit_; }

 private:
  void drop_half() {
    const auto last = blocks_.begin() + static_cast<std::ptrdiff_t>(count_ - 1);
    std::nth_element(blocks_.begin(), last, blocks_.end());
    limit_ = *last;
    blocks_.resize(count_);
  }

  std::optional<BlockPlace> after_;
  size_t count_;
  std::optional<BlockPlace> limit_;  // those behind it are left for another pass
  std::vector<BlockPlace> blocks_;
};

}  // namespace

Result<void> in_ascending_order(const TellBlocks& tell, const UseBlock& use, size_t in_a_pass) {
  std::optional<BlockPlace> last;
  for (;;) {
    FirstBlocks first(last, in_a_pass);
    TRY(tell([&](const BlockPlace& block) { first.add(block); }));
    for (const BlockPlace& block : first.sorted()) TRY(use(block));
    if (first.are_all()) return {};
    last = first.sorted().back();
  }
}

std::optional<Finding> too_many_to_order(uint64_t blocks) {
  constexpr uint64_t kMost = kMaxPasses * kBlocksInAPass;
  if (blocks <= kMost) return std::nullopt;
  return Finding{.kind = Finding::Kind::kFailure,
                 .code = "too-many-blocks",
                 .message = fmt::format("{} blocks are stored, above {}: whether they overlap, or "
                                        "leave room between them, was not looked at",
                                        blocks, kMost)};
}

}  // namespace underlay
