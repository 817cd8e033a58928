#include "server/cluster_read.h"

#include <doctest/doctest.h>

#include <condition_variable>
#include <cstring>
#include <future>
#include <set>
#include <thread>

#include "io/memory_source.h"

namespace underlay {
namespace {

constexpr uint64_t kCluster = 64 << 10;

// All clusters compressed; each is full of its number.
class FakeReader final : public Reader {
 public:
  uint64_t size() const override { return 1 << 20; }
  std::vector<const Source*> sources() const override { return {&source_}; }
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor) const override {
    Extent extent;
    extent.source = &source_;
    extent.kind = Extent::Kind::kCompressed;
    extent.cluster_start = offset - offset % kCluster;
    extent.cluster_length = kCluster;
    extent.length = std::min(length, kCluster - offset % kCluster);
    return extent;
  }
  Result<void> load_cluster(const Extent& extent, MutableByteSpan out) const override {
    const uint64_t number = extent.cluster_start / kCluster;
    std::memset(out.data(), static_cast<int>(number), out.size());
    std::unique_lock lock(mutex_);
    threads.insert(std::this_thread::get_id());
    ++loads;
    entered_.notify_all();
    // Goes on when so many are here together; none would come if they were loaded one by one.
    if (wait_for > 0) {
      entered_.wait_for(lock, std::chrono::seconds(20), [&] { return loads >= wait_for; });
    }
    if (number == damaged) return fail(ErrorKind::kMalformed, "cluster {} is damaged", number);
    return {};
  }

  size_t wait_for = 0;
  uint64_t damaged = UINT64_MAX;
  mutable size_t loads = 0;                   // under mutex_
  mutable std::set<std::thread::id> threads;  // under mutex_

 private:
  MemorySource source_{std::vector<std::byte>(512)};
  mutable std::mutex mutex_;
  mutable std::condition_variable entered_;
};

// A ring with its thread, workers, and who asks for reads.
class Fixture final : private ClusterReadOwner {
 public:
  Fixture() {
    auto reader = std::make_unique<FakeReader>();
    fake = reader.get();
    std::vector<Layer> layers;
    layers.push_back({.reader = std::move(reader), .path = "fake"});
    export_ = std::make_unique<Export>("", "", std::make_shared<Disk>(std::move(layers), caches_));
    thread_ = std::thread([this] { CHECK(ring_->run()); });
  }
  ~Fixture() override {
    ring_->stop();
    thread_.join();
  }

  std::unique_ptr<ClusterRead> read(uint64_t offset, uint64_t length) {
    done_ = {};
    Request request;
    request.offset = offset;
    request.length = length;
    std::vector<ReplyPart> parts;
    for (uint64_t at = offset; at < offset + length; at += parts.back().extent.length) {
      const Extent extent = *disk().map(at, offset + length - at, MapFor::kRead);
      parts.push_back({.extent = extent, .offset = at, .cluster = disk().find_unpacked(extent)});
    }
    ClusterReadOwner& owner = *this;
    ClusterRead::start(*ring_, workers_, owner, *export_, request, std::move(parts), Buffer());
    return done_.get_future().get();
  }
  const Disk& disk() const { return export_->disk(); }

  FakeReader* fake = nullptr;

 private:
  void clusters_unpacked(std::unique_ptr<ClusterRead> read) override {
    CHECK(std::this_thread::get_id() == thread_.get_id());
    done_.set_value(std::move(read));
  }

  Caches caches_;
  std::unique_ptr<Export> export_;
  std::unique_ptr<Ring> ring_ = *Ring::create();
  WorkerPool workers_{2};
  std::promise<std::unique_ptr<ClusterRead>> done_;
  std::thread thread_;
};

TEST_CASE("cluster read: all parts are ready in the end, each with its own bytes") {
  Fixture f;
  const auto read = f.read(kCluster / 2, 4 * kCluster);
  REQUIRE(read->result());
  REQUIRE(read->parts().size() == 5);
  uint64_t at = kCluster / 2;
  for (const ReplyPart& part : read->parts()) {
    CHECK(part.offset == at);
    REQUIRE(part.is_ready());
    const ByteSpan bytes = f.disk().part_of_cluster(*part.cluster, part.extent, part.offset);
    CHECK(bytes.size() == part.extent.length);
    CHECK(bytes.front() == std::byte(at / kCluster));
    CHECK(bytes.data() == part.cluster->data() + at % kCluster);
    at += bytes.size();
  }
}

TEST_CASE("cluster read: several workers share in one") {
  Fixture f;
  f.fake->wait_for = 2;
  CHECK(f.read(0, 4 * kCluster)->result());
  CHECK(f.fake->threads.size() == 2);
}

TEST_CASE("cluster read: what is unpacked already is not unpacked again") {
  Fixture f;
  CHECK(f.read(kCluster, kCluster)->result());
  CHECK(f.fake->loads == 1);
  CHECK(f.read(0, 3 * kCluster)->result());
  CHECK(f.fake->loads == 3);
}

TEST_CASE("cluster read: one damaged cluster is the failure of all of it") {
  for (const uint64_t damaged : {0u, 2u, 3u}) {
    Fixture f;
    f.fake->damaged = damaged;
    const auto read = f.read(0, 4 * kCluster);
    REQUIRE_FALSE(read->result());
    CHECK(read->result().error().message.find("is damaged") != std::string::npos);
  }
}

}  // namespace
}  // namespace underlay
