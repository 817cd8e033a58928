#include "formats/format_table.h"

#include <algorithm>
#include <array>

#include "formats/libyal/libyal_reader.h"
#include "formats/qcow/qcow.h"
#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/qcow2_encryption.h"
#include "formats/raw/raw.h"
#include "formats/vdi/vdi.h"
#include "formats/vhd/vhd.h"
#include "formats/vhdx/vhdx.h"
#include "formats/vmdk/vmdk.h"

namespace underlay {
namespace {

// Adding a format is one line here. The order is that of messages.
constexpr std::array kFormats = {
    Format{.name = kRawFormat, .probe = probe_raw, .open = open_raw},
    Format{.name = "qcow2",
           .snapshots = true,
           .probe = probe_qcow2,
           .set_option = set_qcow2_option,
           .open = open_qcow2,
           .open_by_library = libyal::by_libqcow<open_qcow2>},
    Format{.name = "vpc",
           .alias = "vhd",
           .probe = probe_vhd,
           .set_option = set_vhd_option,
           .open = open_vhd,
           .open_by_library = libyal::by_libvhdi<open_vhd>},
    Format{.name = "vhdx",
           .probe = probe_vhdx,
           .open = open_vhdx,
           .open_by_library = libyal::by_libvhdi<open_vhdx>},
    // Always through libqcow.
    Format{.name = "qcow", .probe = probe_qcow, .open = open_qcow, .open_by_library = open_qcow},
    Format{.name = "vmdk", .probe = probe_vmdk, .open = open_vmdk},
    Format{.name = "vdi", .probe = probe_vdi, .open = open_vdi},
};

}  // namespace

std::span<const Format> formats() { return kFormats; }

const Format* find_format(std::string_view name) {
  for (const Format& format : kFormats) {
    if (name == format.name || (!format.alias.empty() && name == format.alias)) return &format;
  }
  return nullptr;
}

std::string format_names() {
  std::string names;
  for (const Format& format : kFormats) {
    if (!names.empty()) names += ", ";
    names += format.name;
    if (!format.alias.empty()) names += fmt::format(" ({})", format.alias);
  }
  return names;
}

Result<Guess> guess_format(const Source& source) {
  const uint64_t size = source.size();
  std::vector<std::byte> head(std::min<uint64_t>(size, ProbeInput::kHeadBytes));
  std::vector<std::byte> tail(std::min<uint64_t>(size, ProbeInput::kTailBytes));
  TRY(source.read_at(0, head));
  TRY(source.read_at(size - tail.size(), tail));
  const ProbeInput input{.head = head, .tail = tail, .size = size};

  Guess guess;
  for (const Format& format : kFormats) {
    ProbeResult result = format.probe(input);
    if (result.verdict == ProbeVerdict::kDamaged && guess.damaged.empty()) {
      guess.damaged = fmt::format("{} ({})", format.name, result.reason);
    }
    if (result.verdict != ProbeVerdict::kYes) continue;
    if (guess.format != nullptr) {
      return in_file(fail(ErrorKind::kMalformed,
                          "is an image of format {} and of format {}: say with -f which is meant",
                          guess.format->name, format.name),
                     source.name());
    }
    guess.format = &format;
  }
  return guess;
}

}  // namespace underlay
