// Any bytes as a file that holds an image (a tar archive, a compressed image): looking into it and
// reading what is found must end, within bounded memory, in bytes or in an error of one line.
#include <algorithm>

#include "formats/container/container.h"
#include "formats/open_chain.h"
#include "fuzz/rules.h"
#include "io/memory_source.h"

namespace underlay {
namespace {

constexpr uint64_t kMaxRead = 64 << 10;

class NoFiles final : public NamedFiles {
 public:
  Result<OpenedFile> open(const std::string&, std::string_view) const override {
    return fail(ErrorKind::kNotFound, "there are no other files");
  }
};

void check_reads(const Disk& disk) {
  for (const uint64_t offset : {uint64_t{0}, disk.size() / 2, disk.size()}) {
    std::vector<std::byte> bytes(std::min(kMaxRead, disk.size() - offset));
    const auto read = disk.read(offset, bytes);
    if (!read) {
      check_error(read.error());
      continue;
    }
    std::vector<std::byte> again(bytes.size());
    const size_t known = disk.read_from_memory(offset, again);
    require(std::equal(again.begin(), again.begin() + static_cast<std::ptrdiff_t>(known),
                       bytes.begin()),
            "memory has what was read");
  }
}

void run(ByteSpan bytes) {
  const auto source =
      std::make_shared<MemorySource>(std::vector<std::byte>(bytes.begin(), bytes.end()), "file");
  Caches caches(Caches::Budget{.tables = 1 << 20, .clusters = 4 << 20});
  const OpenedFile file{.source = source, .path = "file"};
  const auto member = look_into(file, "", "disk.vmdk", caches);
  if (!member) check_error(member.error());
  const auto image = look_into(file, "", "", caches);
  if (!image) return check_error(image.error());
  const NoFiles outside;
  const NamedFiles& files = image->files ? *image->files : outside;
  if (image->file.source == source) return;  // no container: fuzz_image.cc has that
  const auto opened = open_disk(image->file, OpenOptions{}, files, caches);
  if (!opened) return check_error(opened.error());
  check_reads(*opened->disk);
}

}  // namespace
}  // namespace underlay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  underlay::run(std::as_bytes(std::span(data, size)));
  return 0;
}
