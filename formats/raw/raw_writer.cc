#include "formats/raw/raw_writer.h"

#include "formats/writing/data_blocks.h"

namespace underlay {
namespace {

constexpr uint64_t kNoLimit = ~uint64_t{0};

class RawWriter final : public ImageWriter {
 public:
  RawWriter(const DiskToWrite& disk, Sink& sink)
      : size_(disk.size), blocks_(disk.zero_block), sink_(sink) {
    sink_.set_size(size_);
  }

  bool is_sequential() const override { return true; }
  uint64_t unit() const override { return blocks_.unit(); }

  Result<void> prepare(ByteSpan bytes, std::vector<std::byte>& prepared) const override {
    blocks_.mark(bytes, prepared);
    return {};
  }

  Result<void> write(uint64_t offset, ByteSpan bytes, ByteSpan prepared) override {
    const ByteSpan marks = blocks_.take_marks(bytes.size(), prepared);
    return blocks_.each_run(marks, offset, bytes, kNoLimit,
                            [&](uint64_t at, ByteSpan run) { return sink_.write(at, run); });
  }

  Result<void> finish() override { return sink_.finish(size_); }

 private:
  uint64_t size_;
  DataBlocks blocks_;
  Sink& sink_;
};

}  // namespace

std::unique_ptr<ImageWriter> write_raw(const DiskToWrite& disk, Sink& sink) {
  return std::make_unique<RawWriter>(disk, sink);
}

}  // namespace underlay
