#include "io/http/http_source.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <vector>

#include "io/http/range_reader.h"
#include "io/http/read_windows.h"

namespace underlay {
namespace {

using Clock = std::chrono::steady_clock;

// How often check_unchanged() asks the server, and how long it waits: every read finds out, too.
constexpr std::chrono::seconds kLook{30};
constexpr std::chrono::minutes kLookWhenSilent{5};
constexpr HttpLimits kLookLimits{.connect = std::chrono::milliseconds(1'000),
                                 .range = std::chrono::milliseconds(2'000),
                                 .tries = 1};

// Readers, with their connections, that are kept for later reads.
constexpr size_t kMaxIdle = 16;

// Fowler, Noll and Vo's hash, 64 bits: the same in every program.
uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char letter : text) {
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3;
  }
  return hash;
}

class HttpSource final : public Source {
 public:
  HttpSource(HttpTarget target, const HttpLimits& limits)
      : target_(std::move(target)), limits_(limits) {}

  Result<void> open(HttpKeeper keeper) {
    auto reader = std::make_unique<RangeReader>(target_, limits_);
    std::vector<std::byte> first(keeper == HttpKeeper::kCaller ? 1 : ReadWindows::kWindowBytes);
    pin_ = TRY(reader->open(first));
    windows_.emplace(pin_.size, first,
                     [this](uint64_t offset, MutableByteSpan out) { return fetch(offset, out); });
    idle_.push_back(std::move(reader));
    look_at_ = Clock::now() + kLook;
    // Servers number nothing: of two versions only chance makes both numbers the same.
    const std::string version = target_.shown + "\n" + pin_.etag + "\n" + pin_.last_modified;
    identity_ = {.device = fnv1a(version), .inode = fnv1a(version + "\n")};
    return {};
  }

  const std::string& name() const override { return target_.shown; }
  std::optional<FileIdentity> identity() const override { return identity_; }
  uint64_t size() const override { return pin_.size; }
  std::string lasting_name() const override { return target_.lasting; }

  // Last-Modified counts seconds: it does not tell two versions of the same second apart.
  std::optional<std::string> content_id() const override {
    if (target_.lasting.empty() || !pin_.has_strong_etag()) return std::nullopt;
    return fmt::format("{} {}", target_.lasting, pin_.etag);
  }

  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override {
    return read(offset, out, out.size() <= ReadWindows::kWindowBytes);
  }
  Result<void> fetch_at(uint64_t offset, MutableByteSpan out) const override {
    return read(offset, out, false);
  }

  size_t read_cached(uint64_t offset, MutableByteSpan out) const override {
    return changed_.load(std::memory_order_acquire) ? 0 : windows_->read_cached(offset, out);
  }

  bool is_far() const override { return true; }

  void look_again() const override {
    const std::lock_guard lock(mutex_);
    look_at_ = Clock::now();
  }

  Result<void> check_unchanged() const override {
    look();
    auto known = check_known();
    if (!known) return in_file(std::move(known).error(), target_.shown);
    return {};
  }

 private:
  Result<void> read(uint64_t offset, MutableByteSpan out, bool by_windows) const {
    if (out.empty()) return {};
    Result<void> done;
    if (!range_within(offset, out.size(), pin_.size)) {
      done = fail(ErrorKind::kTruncated,
                  "{} bytes lie beyond the end of the object, which has {} bytes", out.size(),
                  pin_.size);
    } else if (changed_.load(std::memory_order_acquire)) {
      done = check_known();
    } else {
      done = by_windows ? windows_->read(offset, out) : fetch(offset, out);
    }
    if (!done) return in_file(std::move(done).error(), target_.shown, offset);
    return {};
  }

  Result<void> fetch(uint64_t offset, MutableByteSpan out) const {
    TRY(check_known());
    std::unique_ptr<RangeReader> reader = take_reader();
    auto done = reader->read(pin_, offset, out);
    if (!done) return note(*reader, std::move(done).error());
    keep(std::move(reader));
    return {};
  }

  // A failed read. Who has another object once, has it for good.
  Failure note(const RangeReader& reader, Error error) const {
    if (reader.object_changed()) {
      const std::lock_guard lock(mutex_);
      if (!change_) change_ = error;
      changed_.store(true, std::memory_order_release);
    }
    return Failure(std::move(error));
  }

  Result<void> check_known() const {
    if (!changed_.load(std::memory_order_acquire)) return {};
    const std::lock_guard lock(mutex_);
    return Failure(*change_);
  }

  // Asks for one byte, now and then. That the server does not answer is no change.
  void look() const {
    {
      const std::lock_guard lock(mutex_);
      if (change_ || pin_.size == 0 || Clock::now() < look_at_) return;
      look_at_ = Clock::now() + kLook;
    }
    RangeReader reader(target_, kLookLimits);
    std::byte byte{};
    const auto done = reader.read(pin_, 0, {&byte, 1});
    if (done) return;
    if (!reader.object_changed()) {
      // Reads will find out; those who look after many images must not wait for all of them.
      const std::lock_guard lock(mutex_);
      look_at_ = Clock::now() + kLookWhenSilent;
    }
    (void)note(reader, done.error());
  }

  std::unique_ptr<RangeReader> take_reader() const {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<RangeReader>(target_, limits_);
    std::unique_ptr<RangeReader> reader = std::move(idle_.back());
    idle_.pop_back();
    return reader;
  }

  void keep(std::unique_ptr<RangeReader> reader) const {
    const std::lock_guard lock(mutex_);
    if (idle_.size() < kMaxIdle) idle_.push_back(std::move(reader));
  }

  const HttpTarget target_;
  const HttpLimits limits_;
  ObjectPin pin_;
  FileIdentity identity_;
  mutable std::optional<ReadWindows> windows_;
  mutable std::atomic<bool> changed_ = false;  // change_ is there
  mutable std::mutex mutex_;                   // of what follows
  mutable std::optional<Error> change_;
  mutable std::vector<std::unique_ptr<RangeReader>> idle_;  // the one that was used last is last
  mutable Clock::time_point look_at_;
};

}  // namespace

Result<std::shared_ptr<const Source>> open_http_source(const std::string& name, HttpKeeper keeper,
                                                       const HttpLimits& limits) {
  HttpTarget target = TRY(http_target(name));
  const std::string shown = target.shown;
  auto source = std::make_shared<HttpSource>(std::move(target), limits);
  auto opened = source->open(keeper);
  if (!opened) return in_file(std::move(opened).error(), shown);
  return source;
}

}  // namespace underlay
