// Any bytes as several files, whose images name each other: opening the first one with its parents,
// extents and data files must end in a disk that keeps the contracts, or in an error, and follow no
// name that leads out. The first byte of the input says what the operator asked for. Aborts when a
// rule breaks.
#include "formats/open_chain.h"
#include "fuzz/disk_rules.h"
#include "fuzz/files_of_input.h"
#include "fuzz/rules.h"

namespace underlay {
namespace {

OpenOptions asked_for(unsigned choice) {
  OpenOptions options;
  if ((choice & 1) != 0) options.format = "qcow2";
  if ((choice & 2) != 0) options.backing_format = "qcow2";
  if ((choice & 4) != 0) options.image.snapshot = "1";
  if ((choice & 8) != 0) options.start = 512;
  if ((choice & 16) != 0) options.format = "vmdk";
  if ((choice & 32) != 0) options.format = "raw";
  return options;
}

void run(ByteSpan input) {
  if (input.empty()) return;
  const OpenOptions options = asked_for(std::to_integer<unsigned>(input[0]));
  const FilesOfInput files(input.subspan(1));
  if (files.empty()) return;
  Caches caches(Caches::Budget{.tables = 1 << 20, .clusters = 4 << 20});
  size_t seen = 0;
  const auto visit = [&](const ChainImage& image) -> Result<void> {
    require(image.file.source != nullptr, "an image that is seen is open");
    ++seen;
    return {};
  };
  const auto opened = open_disk(files.top(), options, files, caches, visit);
  require(seen <= files.count(), "no file stands twice in a chain");
  if (!opened) return check_error(opened.error());
  const Disk& disk = *opened->disk;
  require(disk.layers().size() == seen, "every image is seen before it is opened");
  for (const std::string& warning : opened->warnings) {
    require(!warning.empty() && printable(warning, warning.size()) == warning,
            "a warning is one printable line");
  }
  require(options.format.empty() || disk.layers().front().format == options.format,
          "a stated format is the format");
  check_disk(disk);
}

}  // namespace
}  // namespace underlay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  underlay::run(std::as_bytes(std::span(data, size)));
  return 0;
}
