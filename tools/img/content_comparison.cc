#include "tools/img/content_comparison.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "tools/common/interruption.h"

namespace underlay::img {
namespace {

// Where parts of a plan may begin and end, and how long those that are read may be.
constexpr uint64_t kUnit = 64 << 10;
constexpr uint64_t kLargestPart = 4 << 20;
static_assert(kLargestPart % ContentComparison::kPiece == 0);

// Of both sides in one step: whoever interrupts, or waits for progress, is not to wait for all of a
// large empty disk.
constexpr uint64_t kZeroStep = 1 << 30;

bool is_all_files(const Disk& disk) {
  for (const Layer& layer : disk.layers()) {
    for (const Source* const source : layer.reader->sources()) {
      if (!source->file().fd()) return false;
    }
  }
  return true;
}

// How many bytes are equal, from the first on. REQUIRES: not empty, equal sizes.
size_t equal_bytes(ByteSpan one, ByteSpan other) {
  if (std::memcmp(one.data(), other.data(), one.size()) == 0) return one.size();
  const auto differing = std::mismatch(one.begin(), one.end(), other.begin()).first;
  return static_cast<size_t>(differing - one.begin());
}
size_t zero_bytes(ByteSpan bytes) {
  if (is_zero(bytes)) return bytes.size();
  const auto other =
      std::find_if(bytes.begin(), bytes.end(), [](std::byte b) { return b != std::byte{0}; });
  return static_cast<size_t>(other - bytes.begin());
}

}  // namespace

struct ContentComparison::Buffers {
  explicit Buffers(uint64_t size)
      : bytes{std::make_unique_for_overwrite<std::byte[]>(size),
              std::make_unique_for_overwrite<std::byte[]>(size)} {}
  std::array<std::unique_ptr<std::byte[]>, 2> bytes;
};

ContentComparison::ContentComparison(const Disk& first, const Disk& second, uint64_t end,
                                     Progress* progress)
    : length_(end),
      step_(is_all_files(first) && is_all_files(second) ? kFileStep : kPiece),
      sides_{Side{.disk = first, .plan{first, 0, std::min(end, first.size()), kUnit, kLargestPart}},
             Side{.disk = second,
                  .plan{second, 0, std::min(end, second.size()), kUnit, kLargestPart}}},
      progress_(progress) {}

ComparisonEnd ContentComparison::run(unsigned threads) {
  {
    std::vector<std::jthread> running;
    for (unsigned i = 1; i < threads; ++i) {
      try {
        running.emplace_back([this] { work(); });
      } catch (const std::system_error&) {
        break;  // fewer will do
      }
    }
    work();
  }
  return end_;
}

void ContentComparison::work() {
  auto worked = without_exceptions([&]() -> Result<void> {
    Buffers buffers(step_);
    while (const auto piece = take_piece()) compare(*piece, buffers);
    return {};
  });
  if (!worked) end_with(ComparisonEnd::Kind::kCannotRead, 0, 0, std::move(worked).error());
}

// Makes sure that the side's part covers the place where the comparison is.
Result<void> ContentComparison::plan_part(Side& side) const {
  if (at_ < side.part.offset + side.part.length) return {};
  const auto next = TRY(side.plan.next());
  side.part = next.value_or(
      ReadPlan::Part{.offset = at_, .length = length_ - at_, .stored = 0, .is_zero = true});
  return {};
}

// The next piece; nullopt when there is no more to do.
std::optional<ContentComparison::Piece> ContentComparison::take_piece() {
  const std::lock_guard planning(plan_mutex_);
  while (at_ < length_ && !has_ended()) {
    if (is_interrupted()) {
      end_with(ComparisonEnd::Kind::kInterrupted, at_);
      return std::nullopt;
    }
    Piece piece{.offset = at_, .length = length_ - at_};
    for (size_t i = 0; i < sides_.size(); ++i) {
      Side& side = sides_[i];
      if (auto planned = plan_part(side); !planned) {
        end_with(ComparisonEnd::Kind::kCannotMap, at_, i, std::move(planned).error());
        return std::nullopt;
      }
      piece.is_zero[i] = side.part.is_zero;
      piece.length = std::min(piece.length, side.part.offset + side.part.length - at_);
    }
    const bool nothing_to_read = piece.is_zero[0] && piece.is_zero[1];
    piece.length = std::min(piece.length, nothing_to_read ? kZeroStep : kPiece);
    at_ += piece.length;
    if (!nothing_to_read) return piece;
    count(piece, piece.length);
  }
  return std::nullopt;
}

void ContentComparison::compare(Piece piece, Buffers& buffers) {
  const uint64_t end = piece.offset + piece.length;
  do {
    piece.length = std::min(step_, end - piece.offset);
    if (!compare_step(piece, buffers)) return;
    piece.offset += piece.length;
  } while (piece.offset < end);
}

bool ContentComparison::compare_step(const Piece& step, Buffers& buffers) {
  std::array<MutableByteSpan, 2> bytes;
  for (size_t i = 0; i < sides_.size(); ++i) {
    if (step.is_zero[i]) continue;
    bytes[i] = {buffers.bytes[i].get(), static_cast<size_t>(step.length)};
    if (auto read = sides_[i].disk.read(step.offset, bytes[i]); !read) {
      end_with(ComparisonEnd::Kind::kCannotRead, step.offset, i, std::move(read).error());
      return false;
    }
  }
  const size_t equal = step.is_zero[0]   ? zero_bytes(bytes[1])
                       : step.is_zero[1] ? zero_bytes(bytes[0])
                                         : equal_bytes(bytes[0], bytes[1]);
  count(step, equal);
  if (equal == step.length) return true;
  end_with(ComparisonEnd::Kind::kDiffers, step.offset + equal);
  return false;
}

bool ContentComparison::has_ended() {
  const std::lock_guard lock(mutex_);
  return end_.kind != ComparisonEnd::Kind::kEqual;
}

void ContentComparison::count(const Piece& piece, uint64_t equal_bytes) {
  const std::lock_guard lock(mutex_);
  end_.compared += equal_bytes;
  for (size_t i = 0; i < sides_.size(); ++i) {
    if (!piece.is_zero[i]) end_.read[i] += piece.length;
  }
  if (progress_ != nullptr) progress_->add(equal_bytes);
}

// Pieces are taken in order, and all that were taken are compared: the first end is the lowest.
void ContentComparison::end_with(ComparisonEnd::Kind kind, uint64_t offset, size_t side,
                                 Error error) {
  const std::lock_guard lock(mutex_);
  if (end_.kind != ComparisonEnd::Kind::kEqual && end_.offset <= offset) return;
  end_.kind = kind;
  end_.offset = offset;
  end_.side = side;
  end_.error = std::move(error);
}

}  // namespace underlay::img
