#include "server/read_operation.h"

#include <doctest/doctest.h>
#include <fcntl.h>

#include <atomic>
#include <cstring>

#include "io/file_source.h"
#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

constexpr uint64_t kHalf = 4 << 10;
constexpr size_t kRequest = 2 * kHalf;

// A file that is never known to be in memory; counts who asks. The ring may be given another
// descriptor.
class ColdFile final : public Source {
 public:
  ColdFile() {
    for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<std::byte>(i % 251);
    file_ = *open_file_source(folder_.write("cold", as_text(content)));
  }
  const std::string& name() const override { return file_->name(); }
  uint64_t size() const override { return file_->size(); }
  std::optional<int> fd() const override { return ring_fd ? *ring_fd : *file_->fd(); }
  size_t read_cached(uint64_t, MutableByteSpan) const override {
    ++looked;
    return 0;
  }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override {
    ++read_by_workers;
    return file_->read_at(offset, out);
  }

  std::vector<std::byte> content = std::vector<std::byte>(kRequest);
  std::optional<int> ring_fd;
  mutable std::atomic<int> looked = 0;
  mutable std::atomic<int> read_by_workers = 0;

 private:
  const TempFolder folder_;
  std::shared_ptr<const Source> file_;
};

// The file's bytes, or zeros up to the middle.
class HalfReader final : public Reader {
 public:
  HalfReader(const Source& source, bool hole) : source_(source), hole_(hole) {}
  uint64_t size() const override { return kRequest; }
  std::vector<const Source*> sources() const override { return {&source_}; }
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor) const override {
    Extent extent;
    extent.length = length;
    extent.kind = Extent::Kind::kData;
    extent.source = &source_;
    extent.source_offset = offset;
    if (!hole_ || offset >= kHalf) return extent;
    extent.kind = Extent::Kind::kZero;
    extent.length = std::min(length, kHalf - offset);
    return extent;
  }

 private:
  const Source& source_;
  const bool hole_;
};

// Reads the whole disk, once.
class Fixture final : public Task, private ReadOwner {
 public:
  explicit Fixture(bool hole) {
    std::vector<Layer> layers;
    layers.push_back({.reader = std::make_unique<HalfReader>(file, hole), .path = "cold"});
    exported_ =
        std::make_unique<Export>("", "", std::make_shared<Disk>(std::move(layers), caches_));
  }
  void read(ReadOperation::Memory memory) {
    memory_ = memory;
    ring_->post(*this);
    CHECK(ring_->run());
    CHECK(operation.result());
    const Buffer buffer = operation.take_buffer();
    bytes.assign(buffer.data(), buffer.data() + kRequest);
  }

 private:
  void run() override {
    operation.start(*exported_, {.command = nbd::Command::kRead, .length = kRequest},
                    *pool_.allocate(kRequest, ByteBudget::Use::kBulk), true, memory_);
  }
  void read_done(ReadOperation&) override { ring_->stop(); }

  Caches caches_;
  std::unique_ptr<Export> exported_;
  ByteBudget budget_{1 << 20, 0};
  BufferPool pool_{budget_};
  std::unique_ptr<Ring> ring_ = *Ring::create();
  WorkerPool workers_{1};
  ReadOperation::Memory memory_{};

 public:
  ColdFile file;
  ReadOperation operation{*ring_, workers_, *this};
  std::vector<std::byte> bytes;
};

TEST_CASE("read operation: what was not in memory is read without a second look") {
  Fixture fixture(false);
  fixture.read(ReadOperation::Memory::kMissed);
  CHECK(fixture.bytes == fixture.file.content);
  CHECK(fixture.file.looked == 0);
  CHECK(fixture.file.read_by_workers == 0);
}

TEST_CASE("read operation: memory is looked into when nobody has done so") {
  Fixture fixture(false);
  fixture.read(ReadOperation::Memory::kUnknown);
  CHECK(fixture.bytes == fixture.file.content);
  CHECK(fixture.file.looked == 1);
}

TEST_CASE("read operation: zeros in front of cold data are noted, and the data is read") {
  Fixture fixture(true);
  fixture.read(ReadOperation::Memory::kMissed);
  const ZeroRuns& holes = fixture.operation.holes();
  REQUIRE(holes.end() - holes.begin() == 1);
  CHECK(holes.begin()->offset == 0);
  CHECK(holes.begin()->length == kHalf);
  CHECK(std::memcmp(fixture.bytes.data() + kHalf, fixture.file.content.data() + kHalf, kHalf) == 0);
}

TEST_CASE("read operation: what the ring cannot read is read by a worker") {
  Fixture fixture(false);
  const UniqueFd unreadable(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  fixture.file.ring_fd = unreadable.get();
  fixture.read(ReadOperation::Memory::kMissed);
  CHECK(fixture.bytes == fixture.file.content);
  CHECK(fixture.file.read_by_workers == 1);
}

}  // namespace
}  // namespace underlay
