#include "tools/img/target_format.h"

#include <algorithm>
#include <array>
#include <bit>
#include <initializer_list>

#include "formats/format_table.h"
#include "formats/options/option_values.h"
#include "formats/qcow2/qcow2_layout.h"
#include "formats/qcow2/qcow2_writer.h"
#include "formats/raw/raw_writer.h"
#include "formats/vhd/vhd_writer.h"
#include "formats/vmdk/vmdk_writer.h"
#include "tools/img/creation_options.h"

namespace underlay::img {
namespace {

using Type = CreationKey::Type;

// Those of qemu-img's that have one value here.
Result<void> check_fixed(const CreationOptions& options, std::string_view key,
                         std::string_view value) {
  if (options.text(key, value) == value) return {};
  return fail(ErrorKind::kUsage, "-o {}: only {} is written here, not \"{}\"", key, value,
              printable(options.text(key, value), 80));
}

Result<void> check_off(const CreationOptions& options,
                       std::initializer_list<std::string_view> switches) {
  for (const std::string_view key : switches) {
    if (options.is_on(key)) return fail(ErrorKind::kUsage, "-o {}: only off is written here", key);
  }
  return {};
}

// qcow2's by the names of its levels, and as qemu-img had them before.
Result<uint32_t> qcow2_version(const CreationOptions& options) {
  const std::string compat = options.text("compat", "v3");
  TRY(check_one_of("-o compat", compat, {"0.10", "1.1", "v2", "v3"}));
  return compat == "1.1" || compat == "v3" ? 3 : 2;
}

Result<void> check_not_compressed(const TargetRequest& request) {
  if (!request.compress) return {};
  return fail(ErrorKind::kUsage,
              "-c: images of the format {} are not compressed: qcow2 is, and vmdk with "
              "-o subformat=streamOptimized",
              request.format);
}

Result<TargetFormat> raw_target(const TargetRequest& request) {
  constexpr std::array kKeys{CreationKey{"preallocation"}};
  const auto options = TRY(CreationOptions::parse(request.options, "raw", kKeys));
  TRY(check_fixed(options, "preallocation", "off"));
  TRY(check_not_compressed(request));
  return TargetFormat{.make_writer = [](const DiskToWrite& disk, const Source*, Sink& sink)
                          -> Result<std::unique_ptr<ImageWriter>> { return write_raw(disk, sink); },
                      .is_sequential = true};
}

Result<TargetFormat> qcow2_target(const TargetRequest& request) {
  constexpr std::array kKeys{CreationKey{"cluster_size", Type::kSize},
                             CreationKey{"compat"},
                             CreationKey{"compression_type"},
                             CreationKey{"data_file_raw", Type::kSwitch},
                             CreationKey{"encryption", Type::kSwitch},
                             CreationKey{"extended_l2", Type::kSwitch},
                             CreationKey{"lazy_refcounts", Type::kSwitch},
                             CreationKey{"preallocation"},
                             CreationKey{"refcount_bits"}};
  const auto options = TRY(CreationOptions::parse(request.options, "qcow2", kKeys));
  TRY(check_off(options, {"data_file_raw", "encryption", "extended_l2", "lazy_refcounts"}));
  TRY(check_fixed(options, "preallocation", "off"));
  TRY(check_fixed(options, "refcount_bits", "16"));
  const std::string type = options.text("compression_type", "zlib");
  TRY(check_one_of("-o compression_type", type, {"zlib", "zstd"}));
  const uint64_t cluster = options.number("cluster_size", 64 << 10);
  constexpr uint64_t kSmallest = 1ull << Qcow2Header::kMinClusterBits;
  constexpr uint64_t kLargest = 1ull << Qcow2Header::kMaxClusterBits;
  if (!std::has_single_bit(cluster) || cluster < kSmallest || cluster > kLargest) {
    return fail(ErrorKind::kUsage, "-o cluster_size: must be a power of two from {} to {}, not {}",
                kSmallest, kLargest, cluster);
  }
  Qcow2ToWrite image;
  image.version = TRY(qcow2_version(options));
  image.cluster_bits = static_cast<uint32_t>(std::countr_zero(cluster));
  image.codec = type == "zstd" ? Codec::kZstd : Codec::kDeflate;
  image.compress = request.compress;
  image.backing = request.backing;
  image.backing_format = request.backing_format;
  if (image.version == 2 && image.codec != Codec::kDeflate) {
    return fail(ErrorKind::kUsage, "-o compression_type: {} needs compat=1.1", type);
  }
  return TargetFormat{.make_writer = [image](const DiskToWrite& disk, const Source*,
                                             Sink& sink) { return write_qcow2(disk, image, sink); },
                      .is_sequential = false};
}

// It has its parent's unique id, and size: that one is looked at.
Result<TargetFormat> differencing_vhd_target(const TargetRequest& request, VhdToWrite image) {
  if (image.is_fixed) {
    return fail(ErrorKind::kUsage, "-o subformat: a fixed vhd has no parent (-B)");
  }
  if (image.force_size) {
    return fail(ErrorKind::kUsage, "-o force_size: with -B, a vhd is as large as its parent");
  }
  const Format* const format = find_format(request.backing_format);
  if (format == nullptr || format->name != "vpc") {
    return fail(ErrorKind::kUsage, "-F: the parent of a vhd is a vhd, vpc, not \"{}\"",
                printable(request.backing_format, 80));
  }
  // Before anything is opened.
  if (auto locators = vhd::ParentLocators::of(request.backing); !locators) {
    return with_context(std::move(locators).error(), "-B: ");
  }
  const auto make = [image, name = request.backing](
                        const DiskToWrite& disk, const Source* parent,
                        Sink& sink) -> Result<std::unique_ptr<ImageWriter>> {
    VhdToWrite child = image;
    child.parent = TRY(vhd::identify_parent(*parent, name));
    return write_vhd(disk, child, sink);
  };
  return TargetFormat{.make_writer = make, .is_sequential = false, .reads_backing = true};
}

Result<TargetFormat> vhd_target(const TargetRequest& request) {
  constexpr std::array kKeys{CreationKey{"force_size", Type::kSwitch}, CreationKey{"subformat"}};
  const auto options = TRY(CreationOptions::parse(request.options, request.format, kKeys));
  const std::string subformat = options.text("subformat", "dynamic");
  TRY(check_one_of("-o subformat", subformat, {"dynamic", "fixed"}));
  TRY(check_not_compressed(request));
  const VhdToWrite image{.is_fixed = subformat == "fixed",
                         .force_size = options.is_on("force_size")};
  if (!request.backing.empty()) return differencing_vhd_target(request, image);
  return TargetFormat{.make_writer = [image](const DiskToWrite& disk, const Source*,
                                             Sink& sink) { return write_vhd(disk, image, sink); },
                      .is_sequential = image.is_fixed};
}

Result<TargetFormat> vmdk_target(const TargetRequest& request) {
  constexpr std::array kKeys{CreationKey{"adapter_type"}, CreationKey{"compat6", Type::kSwitch},
                             CreationKey{"hwversion"}, CreationKey{"subformat"},
                             CreationKey{"zeroed_grain", Type::kSwitch}};
  const auto options = TRY(CreationOptions::parse(request.options, "vmdk", kKeys));
  TRY(check_off(options, {"compat6", "zeroed_grain"}));
  const std::string subformat = options.text("subformat", "monolithicSparse");
  TRY(check_one_of("-o subformat", subformat, {"monolithicSparse", "streamOptimized"}));
  VmdkToWrite image;
  image.stream_optimized = subformat == "streamOptimized";
  if (!image.stream_optimized) TRY(check_not_compressed(request));
  image.adapter_type = options.text("adapter_type", image.adapter_type);
  TRY(check_one_of("-o adapter_type", image.adapter_type,
                   {"ide", "buslogic", "lsilogic", "legacyESX"}));
  image.hardware_version = options.text("hwversion", image.hardware_version);
  image.file_name = request.file_name;
  return TargetFormat{.make_writer = [image](const DiskToWrite& disk, const Source*,
                                             Sink& sink) { return write_vmdk(disk, image, sink); },
                      .is_sequential = image.stream_optimized};
}

struct Target {
  std::string_view format;  // Format::name
  Result<TargetFormat> (*parse)(const TargetRequest& request) = nullptr;
  bool has_backing = false;  // -B
};
constexpr std::array kTargets{Target{"raw", raw_target}, Target{"qcow2", qcow2_target, true},
                              Target{"vpc", vhd_target, true}, Target{"vmdk", vmdk_target}};

}  // namespace

Result<TargetFormat> target_format(const TargetRequest& request) {
  const Format* const format = find_format(request.format);
  if (format == nullptr) {
    return fail(ErrorKind::kUsage, "unknown file format '{}'", printable(request.format, 80));
  }
  const auto target = std::ranges::find(kTargets, format->name, &Target::format);
  if (target == kTargets.end()) {
    return fail(ErrorKind::kUsage, "images of the format {} are read, but not written: {} are",
                format->name, target_format_names());
  }
  if (!request.backing.empty() && !target->has_backing) {
    return fail(ErrorKind::kUsage,
                "-B: of the formats that are written, qcow2 and vpc have backing files");
  }
  return target->parse(request);
}

std::string target_format_names() {
  std::string names;
  for (const Target& target : kTargets) {
    if (!names.empty()) names += ", ";
    names += target.format;
  }
  return names;
}

}  // namespace underlay::img
