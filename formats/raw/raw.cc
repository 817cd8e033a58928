#include "formats/raw/raw.h"

namespace underlay {
namespace {

class RawReader final : public Reader {
 public:
  explicit RawReader(std::shared_ptr<const Source> source) : source_(std::move(source)) {}

  uint64_t size() const override { return source_->size(); }
  std::vector<const Source*> sources() const override { return {source_.get()}; }

  Result<Extent> map(uint64_t offset, uint64_t length, MapFor) const override {
    Extent extent;
    extent.kind = Extent::Kind::kData;
    extent.length = length;
    extent.source = source_.get();
    extent.source_offset = offset;
    return extent;
  }

 private:
  std::shared_ptr<const Source> source_;
};

}  // namespace

// Any file may be raw, so nothing speaks for it.
ProbeResult probe_raw(const ProbeInput&) { return {}; }

Result<std::unique_ptr<Reader>> open_raw(const ImageToOpen& image) {
  return std::make_unique<RawReader>(image.source);
}

}  // namespace underlay
