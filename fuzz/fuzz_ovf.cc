// Any bytes as an OVF descriptor. Aborts when its contract breaks.
#include "formats/container/ovf_descriptor.h"
#include "fuzz/rules.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto disks = underlay::ovf::parse_disks(std::as_bytes(std::span(data, size)));
  if (!disks) underlay::check_error(disks.error());
  if (disks) underlay::require(disks->size() <= size, "a disk costs some bytes of the descriptor");
  return 0;
}
