#include "tools/img/image_size.h"

#include <array>

#include "formats/format_table.h"
#include "formats/options/option_values.h"
#include "tools/img/creation_options.h"
#include "tools/img/luks_size.h"
#include "tools/img/qcow2_size.h"

namespace underlay::img {
namespace {

using Type = CreationKey::Type;

// A raw file is as long as the disk, whatever is in it.
Result<ImageSize> raw_size(const std::vector<std::string>& given, const DiskToStore& disk) {
  constexpr std::array kKeys{CreationKey{"size", Type::kSize}, CreationKey{"preallocation"},
                             CreationKey{"nocow", Type::kSwitch},
                             CreationKey{"extent_size_hint", Type::kSize}};
  const CreationOptions options = TRY(CreationOptions::parse(given, "raw", kKeys));
  TRY(check_one_of("-o preallocation", options.text("preallocation", "off"),
                   {"off", "falloc", "full"}));
  return ImageSize{.required = disk.size, .fully_allocated = disk.size};
}

}  // namespace

Result<ImageSize> image_size(std::string_view format, const std::vector<std::string>& options,
                             const DiskToStore& disk) {
  if (format == "raw") return raw_size(options, disk);
  if (format == "qcow2") return qcow2_size(options, disk);
  if (format == "luks") return luks_size(options, disk);
  if (find_format(format) == nullptr) {
    return fail(ErrorKind::kUsage, "unknown file format '{}'", printable(format, 80));
  }
  return fail(ErrorKind::kUsage,
              "the format '{}' does not support size measurement: only raw, qcow2 and luks do",
              format);
}

}  // namespace underlay::img
