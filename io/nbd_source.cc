#include "io/nbd_source.h"

#include <algorithm>
#include <list>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace underlay {
namespace {

// What one connection does not carry, four mostly do; servers count their clients.
constexpr size_t kMaxConnections = 4;

// How far one question about holes looks ahead: a sparse disk of 1 TiB takes 4096 of them, and a
// server has not much to do for one whose answer is not used.
constexpr uint64_t kStatusAhead = 256 << 20;

// Answers about holes that are remembered: some for each of a few threads that look at different
// places. At most 16 MiB (NbdConnection::kMaxRuns).
constexpr size_t kMaxAnswers = 8;

// Where the holes are, as far as the server was asked already. Thread-safe.
class KnownRuns {
 public:
  // nullopt when nothing is known of `offset`.
  std::optional<SourceRun> find(uint64_t offset, uint64_t length) {
    const std::lock_guard lock(mutex_);
    for (auto answer = answers_.begin(); answer != answers_.end(); ++answer) {
      if (offset < answer->start || offset >= answer->runs.back().end) continue;
      answers_.splice(answers_.begin(), answers_, answer);
      return run_in(*answer, offset, length);
    }
    return std::nullopt;
  }

  // REQUIRES: runs is not empty.
  void remember(uint64_t start, std::vector<NbdRun> runs) {
    const std::lock_guard lock(mutex_);
    if (answers_.size() == kMaxAnswers) answers_.pop_back();
    answers_.push_front({.start = start, .runs = std::move(runs)});
  }

 private:
  struct Answer {
    uint64_t start = 0;
    std::vector<NbdRun> runs;
  };

  // Only zeros are proved: a hole whose content the server leaves open is data.
  static SourceRun run_in(const Answer& answer, uint64_t offset, uint64_t length) {
    const auto run = std::upper_bound(answer.runs.begin(), answer.runs.end(), offset,
                                      [](uint64_t at, const NbdRun& one) { return at < one.end; });
    return {.hole = run->zero,
            .length = std::min(length, run->end - offset),
            .reserved = run->zero && !run->hole};
  }

  std::mutex mutex_;
  std::list<Answer> answers_;  // the one that was used last comes first
};

class NbdSource final : public Source {
 public:
  NbdSource(std::string uri, const NbdLimits& limits, std::shared_ptr<NbdConnection> first)
      : uri_(std::move(uri)), limits_(limits), facts_(first->facts()) {
    connections_.push_back(std::move(first));
    most_ = facts_.multi_conn ? kMaxConnections : 1;
  }

  const std::string& name() const override { return uri_; }
  uint64_t size() const override { return facts_.size; }
  bool is_far() const override { return true; }

  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override {
    if (!range_within(offset, out.size(), facts_.size)) {
      return in_file(fail(ErrorKind::kTruncated,
                          "{} bytes lie beyond the end of the export, which has {} bytes",
                          out.size(), facts_.size),
                     uri_, offset);
    }
    while (!out.empty()) {
      auto done = read_some(offset, out);
      if (!done) return in_file(std::move(done).error(), uri_, offset);
      offset += *done;
      out = out.subspan(*done);
    }
    return {};
  }

  SourceRun run_at(uint64_t offset, uint64_t length) const override {
    const SourceRun data{.hole = false, .length = length};
    if (!facts_.block_status) return data;
    if (const auto known = known_.find(offset, length)) return *known;
    const uint64_t start = offset - offset % facts_.min_block;
    const uint64_t ahead = std::min(kStatusAhead, facts_.size - start);
    auto runs = connection()->block_status(start, static_cast<uint32_t>(ahead));
    if (!runs) return data;
    known_.remember(start, *std::move(runs));
    return known_.find(offset, length).value_or(data);
  }

 private:
  // One request's worth from the front of `out`. Returns the number of bytes.
  Result<size_t> read_some(uint64_t offset, MutableByteSpan out) const {
    const uint64_t block = facts_.min_block;
    const uint64_t skip = offset % block;
    uint64_t length = std::min<uint64_t>(out.size(), facts_.max_block);
    if (offset + length != facts_.size) length -= length % block;
    if (skip == 0 && length > 0) {
      TRY(connection()->read(offset, out.first(static_cast<size_t>(length))));
      return static_cast<size_t>(length);
    }
    // Less than a block: all of it is read.
    const uint64_t start = offset - skip;
    std::vector<std::byte> whole(std::min(block, facts_.size - start));
    TRY(connection()->read(start, whole));
    const size_t part = std::min<size_t>(out.size(), whole.size() - skip);
    std::copy_n(whole.begin() + static_cast<ptrdiff_t>(skip), part, out.begin());
    return part;
  }

  // The least busy one; a further one when all are busy and the server takes it. One that is lost,
  // which nothing keeps busy, only when all are.
  std::shared_ptr<NbdConnection> connection() const {
    std::unique_lock lock(mutex_);
    std::shared_ptr<NbdConnection> best = *std::ranges::min_element(
        connections_, {},
        [](const auto& one) { return std::pair(one->is_lost(), one->in_flight()); });
    if (best->in_flight() == 0 || connections_.size() >= most_ || connecting_) return best;
    connecting_ = true;
    lock.unlock();
    auto further = NbdConnection::connect(uri_, limits_.further_connect, limits_.answer);
    lock.lock();
    connecting_ = false;
    if (!further || (*further)->facts() != facts_) {
      most_ = connections_.size();
      return best;
    }
    connections_.push_back(*std::move(further));
    return connections_.back();
  }

  std::string uri_;
  NbdLimits limits_;
  NbdExport facts_;
  mutable KnownRuns known_;
  mutable std::mutex mutex_;  // of what follows
  mutable std::vector<std::shared_ptr<NbdConnection>> connections_;
  mutable size_t most_ = 1;  // of them
  mutable bool connecting_ = false;
};

Result<void> check_scheme(const std::string& uri) {
  for (const char* scheme : {"nbd://", "nbd+unix://", "nbds://", "nbds+unix://"}) {
    if (uri.starts_with(scheme)) return {};
  }
  return fail(ErrorKind::kUsage,
              "no address of an NBD export: it must begin with nbd://, nbd+unix://, nbds:// or "
              "nbds+unix://");
}

Result<std::shared_ptr<const Source>> open(const std::string& uri, const NbdLimits& limits) {
  TRY(check_scheme(uri));
  auto first = TRY(NbdConnection::connect(uri, limits.connect, limits.answer));
  return std::make_shared<const NbdSource>(uri, limits, std::move(first));
}

}  // namespace

Result<std::shared_ptr<const Source>> open_nbd_source(const std::string& uri,
                                                      const NbdLimits& limits) {
  auto opened = open(uri, limits);
  if (!opened) return in_file(std::move(opened).error(), uri);
  return opened;
}

}  // namespace underlay
