// What a differencing VHD says of its parent when it is written ("Dynamic Disk Header Format",
// "Parent Locator Entries"). What it says when it is read: vhd_parent.h.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "formats/vhd/vhd_layout.h"
#include "io/source.h"

namespace underlay {

struct VhdParent {
  std::string name;  // as the overlay has it: a path from its own folder, or an absolute one
  Guid unique_id{};
  uint32_t time_stamp = 0;  // seconds since 2000-01-01, UTC
  uint64_t size = 0;        // of the disk, bytes
};

// Of the VHD `source`, of any kind. Fails when it cannot be read as one. May block.
Result<VhdParent> vhd_parent(const Source& source, std::string name);

namespace vhd {

// A parent's names, each as those who read it expect it: the header's (libvhdi), W2ru (Windows),
// MacX (tapdisk).
class ParentNames {
 public:
  // kUsage when no VHD can have the name: it is no UTF-8, too long, a URL, or has a backslash,
  // which separates folders on Windows.
  static Result<ParentNames> of(const std::string& name);

  // Whole sectors, for the locators.
  const std::vector<std::byte>& data() const { return data_; }

  // Fills the dynamic disk header's fields of the parent, but not its checksum. `data_offset`:
  // where data() lies in the file. REQUIRES: header.size() == kDynamicHeaderBytes.
  void put(const VhdParent& parent, uint64_t data_offset, MutableByteSpan header) const;

 private:
  void add(std::string_view code, ByteSpan text);

  struct Locator {
    std::string_view code;
    size_t at = 0;  // in data_
    uint32_t length = 0;
  };
  std::vector<std::byte> unicode_name_;  // UTF-16BE
  std::vector<Locator> locators_;
  std::vector<std::byte> data_;
};

}  // namespace vhd
}  // namespace underlay
