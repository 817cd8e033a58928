#include "tools/thin/direct_runs.h"

#include <queue>

namespace underlay::thin {
namespace {

using Kind = DirectRun::Kind;

bool goes_on(const DirectRun& run, const DirectRun& next) {
  if (run.kind != next.kind) return false;
  if (run.kind != Kind::kFile) return true;
  return run.file == next.file && next.file_sector - run.file_sector == run.sectors;
}

// The runs as a linked list in which neighbours become one.
class Joiner {
 public:
  explicit Joiner(std::vector<DirectRun>& runs) : runs_(runs), nodes_(runs.size()) {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      nodes_[i].previous = i == 0 ? kNone : i - 1;
      nodes_[i].next = i + 1 == nodes_.size() ? kNone : i + 1;
    }
    std::vector<Pair> pairs;
    pairs.reserve(nodes_.size());
    for (size_t i = 0; i + 1 < nodes_.size(); ++i) pairs.push_back(pair_at(i));
    pairs_ = decltype(pairs_)(std::greater<>(), std::move(pairs));
  }

  void join_until(size_t limit) {
    size_t left = runs_.size();
    while (left > limit && !pairs_.empty()) {
      const Pair pair = pairs_.top();
      pairs_.pop();
      if (is_stale(pair)) continue;
      left -= join(pair.first);
    }
    std::vector<DirectRun> rest;
    rest.reserve(left);
    for (size_t i = 0; i != kNone; i = nodes_[i].next) rest.push_back(runs_[i]);
    runs_ = std::move(rest);
  }

 private:
  static constexpr size_t kNone = SIZE_MAX;
  struct Node {
    size_t previous = kNone;
    size_t next = kNone;
    uint32_t version = 0;  // counts up when the run changes
    bool gone = false;
  };
  struct Pair {
    uint64_t lost = 0;  // sectors that are direct and would not be any more
    size_t first = 0, second = 0;
    uint64_t versions = 0;
    auto operator<=>(const Pair&) const = default;
  };

  uint64_t direct_sectors(size_t i) const {
    return runs_[i].kind == Kind::kServer ? 0 : runs_[i].sectors;
  }
  uint64_t versions(size_t first, size_t second) const {
    return uint64_t{nodes_[first].version} + nodes_[second].version;  // both only grow
  }
  Pair pair_at(size_t i) const {
    const size_t next = nodes_[i].next;
    return {.lost = direct_sectors(i) + direct_sectors(next),
            .first = i,
            .second = next,
            .versions = versions(i, next)};
  }
  bool is_stale(const Pair& pair) const {
    return nodes_[pair.first].gone || nodes_[pair.first].next != pair.second ||
           versions(pair.first, pair.second) != pair.versions;
  }

  void absorb_next(size_t i) {
    const size_t next = nodes_[i].next;
    runs_[i].sectors += runs_[next].sectors;
    nodes_[i].next = nodes_[next].next;
    if (nodes_[i].next != kNone) nodes_[nodes_[i].next].previous = i;
    nodes_[next].gone = true;
  }

  // Answers by how many runs the list is shorter.
  size_t join(size_t i) {
    absorb_next(i);
    size_t fewer = 1;
    runs_[i] = {.kind = Kind::kServer, .start = runs_[i].start, .sectors = runs_[i].sectors};
    const auto is_server = [&](size_t n) { return n != kNone && runs_[n].kind == Kind::kServer; };
    if (is_server(nodes_[i].next)) {
      absorb_next(i);
      ++fewer;
    }
    if (is_server(nodes_[i].previous)) {
      i = nodes_[i].previous;
      absorb_next(i);
      ++fewer;
    }
    ++nodes_[i].version;
    if (nodes_[i].previous != kNone) pairs_.push(pair_at(nodes_[i].previous));
    if (nodes_[i].next != kNone) pairs_.push(pair_at(i));
    return fewer;
  }

  std::vector<DirectRun>& runs_;
  std::vector<Node> nodes_;
  std::priority_queue<Pair, std::vector<Pair>, std::greater<>> pairs_;
};

}  // namespace

void append_run(std::vector<DirectRun>& runs, const DirectRun& run) {
  if (!runs.empty() && goes_on(runs.back(), run)) {
    runs.back().sectors += run.sectors;
  } else {
    runs.push_back(run);
  }
}

void join_runs(std::vector<DirectRun>& runs, size_t limit) {
  if (runs.size() > limit) Joiner(runs).join_until(limit);
}

}  // namespace underlay::thin
