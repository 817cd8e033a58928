#include <algorithm>
#include <array>
#include <cassert>

#include "formats/format_table.h"
#include "formats/inspection/inspector.h"
#include "formats/libyal/libyal_opinion.h"
#include "formats/qcow/qcow_check.h"
#include "formats/qcow/qcow_describe.h"
#include "formats/qcow/qcow_dump.h"
#include "formats/qcow2/qcow2_check.h"
#include "formats/qcow2/qcow2_describe.h"
#include "formats/qcow2/qcow2_dump.h"
#include "formats/raw/raw_inspect.h"
#include "formats/vdi/vdi_check.h"
#include "formats/vdi/vdi_describe.h"
#include "formats/vdi/vdi_dump.h"
#include "formats/vhd/vhd_check.h"
#include "formats/vhd/vhd_describe.h"
#include "formats/vhd/vhd_dump.h"
#include "formats/vhdx/vhdx_check.h"
#include "formats/vhdx/vhdx_describe.h"
#include "formats/vhdx/vhdx_dump.h"
#include "formats/vmdk/vmdk_check.h"
#include "formats/vmdk/vmdk_describe.h"
#include "formats/vmdk/vmdk_dump.h"

namespace underlay {
namespace {

// Beside each line of format_table.cc one here.
constexpr std::array kInspectors = {
    Inspector{.format = kRawFormat, .describe = describe_raw, .dump = dump_raw},
    Inspector{.format = "qcow2",
              .describe = describe_qcow2,
              .check = check_qcow2,
              .dump = dump_qcow2,
              .second_opinion = libyal::opinion_of_libqcow},
    Inspector{.format = "vpc",
              .describe = describe_vhd,
              .check = check_vhd,
              .dump = dump_vhd,
              .second_opinion = libyal::opinion_of_libvhdi},
    Inspector{.format = "vhdx",
              .describe = describe_vhdx,
              .check = check_vhdx,
              .dump = dump_vhdx,
              .second_opinion = libyal::opinion_of_libvhdi},
    Inspector{.format = "qcow",
              .describe = describe_qcow,
              .check = check_qcow,
              .dump = dump_qcow,
              .second_opinion = libyal::opinion_of_libqcow},
    Inspector{.format = "vmdk",
              .describe = describe_vmdk,
              .check = check_vmdk,
              .dump = dump_vmdk,
              .second_opinion = libyal::opinion_of_libvmdk},
    Inspector{.format = "vdi", .describe = describe_vdi, .check = check_vdi, .dump = dump_vdi},
};

}  // namespace

const Inspector& inspector_of(std::string_view format) {
  const auto found =
      std::find_if(kInspectors.begin(), kInspectors.end(),
                   [&](const Inspector& inspector) { return inspector.format == format; });
  assert(found != kInspectors.end());
  return *found;
}

}  // namespace underlay
