// Any bytes as several files, whose images our readers and those of libqcow, libvhdi and libvmdk
// read. Where both give bytes, they give the same, but for differences that are listed below.
// Either may refuse: what the libraries are known to misread, formats/libyal keeps from them
// (libyal_reader.h and libyal_opinion.h list it). Aborts when bytes differ.
#include <algorithm>

#include "formats/format_table.h"
#include "formats/inspection/inspector.h"
#include "formats/inspection/second_opinion.h"
#include "formats/open_chain.h"
#include "fuzz/files_of_input.h"
#include "fuzz/rules.h"

namespace underlay {
namespace {

constexpr int kMaxSteps = 64;
constexpr uint64_t kSkipAfterError = 64 << 10;
constexpr uint64_t kMaxRead = 16 << 10;

bool all_zeros(ByteSpan bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

// One disk as our readers have it, and as a library has.
class Comparison {
 public:
  // Is a difference of a sector one that the library is known for?
  using IsKnown = bool (*)(ByteSpan own, ByteSpan other);

  Comparison(const Disk& own, const Disk& other, IsKnown is_known)
      : own_(own), other_(other), is_known_(is_known) {}

  void run() const {
    const uint64_t end = std::min(own_.size(), other_.size());
    uint64_t offset = 0;
    for (int step = 0; step < kMaxSteps && offset < end; ++step) {
      offset += compare_part(offset, end);
    }
    if (end > 0) compare_part(end - std::min(end, kMaxRead), end);
  }

 private:
  // The bytes to go on by.
  uint64_t compare_part(uint64_t offset, uint64_t end) const {
    const auto extent = own_.map(offset, end - offset, MapFor::kRead);
    const uint64_t step = extent ? extent->length : std::min(kSkipAfterError, end - offset);
    std::vector<std::byte> bytes(std::min(kMaxRead, end - offset));
    std::vector<std::byte> others(bytes.size());
    const auto read = own_.read(offset, bytes);
    const auto read_other = other_.read(offset, others);
    if (!read) check_error(read.error());
    if (!read_other) check_error(read_other.error());
    if (!read || !read_other) return step;
    for (size_t at = 0; at < bytes.size(); at += Disk::kSectorBytes) {
      const size_t length = std::min<size_t>(Disk::kSectorBytes, bytes.size() - at);
      compare_sector(offset + at, ByteSpan(bytes).subspan(at, length),
                     ByteSpan(others).subspan(at, length));
    }
    return step;
  }

  void compare_sector(uint64_t offset, ByteSpan own, ByteSpan other) const {
    const auto differ = std::mismatch(own.begin(), own.end(), other.begin());
    if (differ.first == own.end() || is_known_(own, other)) return;
    std::fprintf(stderr, "guest offset %llu: %02x, the library has %02x\n",
                 static_cast<unsigned long long>(offset) +
                     static_cast<unsigned long long>(differ.first - own.begin()),
                 std::to_integer<unsigned>(*differ.first),
                 std::to_integer<unsigned>(*differ.second));
    require(false, "a library reads the same bytes");
  }

  const Disk& own_;
  const Disk& other_;
  IsKnown is_known_;
};

bool nothing_is_known(ByteSpan, ByteSpan) { return false; }

// libvhdi takes a sector of a dynamic VHD whose bit is not set for zeros, whatever is stored there;
// but only whole bytes of bits, so that it shows what tapdisk did not write. Which of them lie here
// only the bitmap says, which our reader goes by as the image's creator does.
bool is_about_sector_bits(ByteSpan own, ByteSpan other) {
  return all_zeros(own) || all_zeros(other);
}

// --reader libyal: what is served is the library's.
void compare_served(const Disk& own, const FilesOfInput& files, Caches& caches) {
  OpenOptions options;
  options.reader = ReaderChoice::kLibyal;
  const auto served = open_disk(files.top(), options, files, caches);
  if (!served) return check_error(served.error());
  require(own.size() == served->disk->size(), "a library's disk has the same size");
  Comparison(own, *served->disk, nothing_is_known).run();
}

// compare --second-opinion: the sizes may differ, and that is told.
void compare_opinion(const std::shared_ptr<const Disk>& own, Caches& caches) {
  const Format& format = *find_format(own->layers().front().format);
  const auto ask = inspector_of(format.name).second_opinion;
  if (ask == nullptr) return;
  auto opinion = ask(own);
  if (!opinion) return check_error(opinion.error());
  std::vector<Layer> layers;
  layers.push_back({.reader = std::move(opinion->reader), .path = "opinion"});
  const Disk other(std::move(layers), caches);
  Comparison(*own, other, format.name == "vpc" ? is_about_sector_bits : nothing_is_known).run();
}

void run(ByteSpan input) {
  const FilesOfInput files(input);
  if (files.empty()) return;
  Caches caches(Caches::Budget{.tables = 1 << 20, .clusters = 4 << 20});
  const auto own = open_disk(files.top(), OpenOptions{}, files, caches);
  if (!own) return check_error(own.error());
  compare_served(*own->disk, files, caches);
  compare_opinion(own->disk, caches);
}

}  // namespace
}  // namespace underlay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  underlay::run(std::as_bytes(std::span(data, size)));
  return 0;
}
