#include "server/read_ahead.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <future>
#include <set>
#include <thread>

#include "io/memory_source.h"

namespace underlay {
namespace {

constexpr uint64_t kCluster = 64 << 10;
constexpr uint64_t kRead = 256 << 10;
constexpr uint64_t kDiskBytes = 256 << 20;

// All clusters compressed, or none; notes which ones were unpacked, and in which order.
class FakeReader final : public Reader {
 public:
  explicit FakeReader(bool compressed) : compressed_(compressed) {}
  uint64_t size() const override { return kDiskBytes; }
  std::vector<const Source*> sources() const override { return {&source_}; }
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor) const override {
    Extent extent;
    extent.source = &source_;
    extent.kind = compressed_ ? Extent::Kind::kCompressed : Extent::Kind::kData;
    extent.length = length;
    if (!compressed_) return extent;
    extent.cluster_start = offset - offset % kCluster;
    extent.cluster_length = kCluster;
    extent.length = std::min(length, kCluster - offset % kCluster);
    return extent;
  }
  Result<void> load_cluster(const Extent& extent, MutableByteSpan) const override {
    std::this_thread::sleep_for(std::chrono::microseconds(slow ? 5000 : 0));
    const std::lock_guard lock(mutex_);
    unpacked_.push_back(extent.cluster_start);
    if (fails) return fail(ErrorKind::kIo, "damaged");
    return {};
  }
  std::vector<uint64_t> unpacked() const {
    const std::lock_guard lock(mutex_);
    auto sorted = unpacked_;
    std::sort(sorted.begin(), sorted.end());
    return sorted;
  }

  std::atomic<bool> slow = false;
  std::atomic<bool> fails = false;

 private:
  bool compressed_;
  MemorySource source_{std::vector<std::byte>(512)};
  mutable std::mutex mutex_;
  mutable std::vector<uint64_t> unpacked_;
};

class Call final : public Task {
 public:
  explicit Call(std::function<void()> work) : work_(std::move(work)) {}
  void run() override {
    work_();
    done.set_value();
  }
  std::promise<void> done;

 private:
  std::function<void()> work_;
};

// A ring with its thread, workers, and one connection's read-ahead.
class Fixture final : private ReadAheadOwner {
 public:
  explicit Fixture(bool compressed = true) {
    auto reader = std::make_unique<FakeReader>(compressed);
    fake = reader.get();
    std::vector<Layer> layers;
    layers.push_back({.reader = std::move(reader), .path = "fake"});
    exported = std::make_unique<Export>("", "", std::make_shared<Disk>(std::move(layers), caches));
    ring_ = *Ring::create();
    workers_ = std::make_unique<WorkerPool>(2);
    ReadAheadOwner& owner = *this;
    ahead = std::make_unique<ReadAhead>(*ring_, *workers_, owner);
    thread_ = std::thread([this] { CHECK(ring_->run()); });
  }
  ~Fixture() override {
    on_ring([this] { ahead->stop(); });
    settle();
    workers_ = nullptr;
    ring_->stop();
    thread_.join();
  }

  void on_ring(std::function<void()> work) {
    Call call(std::move(work));
    ring_->post(call);
    call.done.get_future().wait();
  }
  void read(uint64_t offset, uint64_t length = kRead) {
    on_ring([&] { ahead->note(*exported, offset, length); });
  }
  // Until nothing is read ahead any more.
  void settle() {
    for (bool running = true; running;) {
      on_ring([&] { running = ahead->running(); });
      if (running) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  Caches caches;
  FakeReader* fake = nullptr;
  std::unique_ptr<Export> exported;
  std::unique_ptr<ReadAhead> ahead;
  std::atomic<int> ended = 0;

 private:
  void read_ahead_ended() override { ++ended; }

  std::unique_ptr<Ring> ring_;
  std::unique_ptr<WorkerPool> workers_;
  std::thread thread_;
};

TEST_CASE("read-ahead: sequential reads have the clusters behind them unpacked, each once") {
  Fixture fixture;
  uint64_t at = 0;
  for (; at < 16 << 20; at += kRead) {
    fixture.read(at);
    fixture.settle();
  }
  const auto unpacked = fixture.fake->unpacked();
  CHECK(std::set(unpacked.begin(), unpacked.end()).size() == unpacked.size());
  // From behind the third read on without a gap, and no further than the window.
  REQUIRE(!unpacked.empty());
  CHECK(unpacked.front() == 3 * kRead);
  CHECK(unpacked.back() - unpacked.front() == (unpacked.size() - 1) * kCluster);
  CHECK(unpacked.back() + kCluster >= at + ReadAhead::kMaxWindow / 2);
  CHECK(unpacked.back() + kCluster <= at + ReadAhead::kMaxWindow);
  CHECK(fixture.ended > 0);
}

TEST_CASE("read-ahead: reads in a slightly different order are still sequential") {
  Fixture fixture;
  for (const uint64_t block : {1u, 0u, 3u, 2u, 4u, 6u, 5u, 7u}) fixture.read(block * kRead);
  fixture.settle();
  CHECK(!fixture.fake->unpacked().empty());
}

TEST_CASE("read-ahead: random reads and uncompressed data have nothing read ahead") {
  Fixture random;
  for (uint64_t i = 0; i < 1000; ++i) random.read(i * 7919 % 1024 * kRead, 4096);
  random.settle();
  CHECK(random.fake->unpacked().empty());

  Fixture plain(false);
  for (uint64_t i = 0; i < 1000; ++i) {
    plain.read(i * kRead);
    plain.on_ring([&] { CHECK(!plain.ahead->running()); });
  }
  CHECK(plain.caches.read_ahead.used() == 0);
}

TEST_CASE("read-ahead: the last cluster of the disk is the end") {
  Fixture fixture;
  for (uint64_t at = kDiskBytes - 8 * kRead; at < kDiskBytes; at += kRead) fixture.read(at);
  fixture.settle();
  CHECK(fixture.fake->unpacked().back() == kDiskBytes - kCluster);
}

TEST_CASE("read-ahead: the window fits in the budget, which is given back") {
  Fixture fixture;
  ByteBudget& budget = fixture.caches.read_ahead;
  const uint64_t others = fixture.caches.clusters.used();
  CHECK(others == 0);
  REQUIRE(
      budget.take(Caches::Budget{}.clusters / 8 - ReadAhead::kFirstWindow, ByteBudget::Use::kBulk));
  uint64_t at = 0;
  for (; at < 4 << 20; at += kRead) {
    fixture.read(at);
    fixture.settle();
  }
  CHECK(fixture.fake->unpacked().back() + kCluster <= at + ReadAhead::kFirstWindow);
  const uint64_t used = budget.used();
  fixture.read(128 << 20);  // another place
  CHECK(budget.used() == used - ReadAhead::kFirstWindow);
}

TEST_CASE("read-ahead: stopped, it ends after the pieces at hand") {
  Fixture fixture;
  fixture.fake->slow = true;
  for (uint64_t at = 0; at < 8 << 20; at += kRead) fixture.read(at);
  fixture.on_ring([&] {
    CHECK(fixture.ahead->running());
    fixture.ahead->stop();
  });
  const size_t before = fixture.fake->unpacked().size();
  fixture.settle();
  CHECK(fixture.fake->unpacked().size() <= before + 2);
  CHECK(fixture.caches.read_ahead.used() == 0);
}

TEST_CASE("read-ahead: a cluster that cannot be unpacked does not stop it") {
  Fixture fixture;
  fixture.fake->fails = true;
  for (uint64_t at = 0; at < 8 << 20; at += kRead) fixture.read(at);
  fixture.settle();
  CHECK(fixture.fake->unpacked().size() > 16);
}

TEST_CASE("read-ahead: the far half of a long read is unpacked beside its worker") {
  Fixture fixture;
  fixture.on_ring([&] { fixture.ahead->help(*fixture.exported, kRead, kRead); });
  fixture.settle();
  CHECK(fixture.fake->unpacked() == std::vector{kRead + 2 * kCluster, kRead + 3 * kCluster});
}

}  // namespace
}  // namespace underlay
