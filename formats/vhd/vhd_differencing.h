// What a differencing VHD says of its parent when it is written ("Dynamic Disk Header Format",
// "Parent Locator Entries"). What it says when it is read: vhd_parent.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/vhd/vhd_layout.h"
#include "io/source.h"

namespace underlay::vhd {

struct ParentIdentity {
  std::string name;  // as the child has it: a path from its own folder, or an absolute one
  Guid unique_id{};
  // Seconds since 2000-01-01, UTC: the parent's own, which an image that is copied keeps. (The
  // specification has the time when its file was written; no writer keeps that right.)
  uint32_t time_stamp = 0;
  uint64_t size = 0;  // of the disk, bytes
};

// Of the VHD `source`, of any kind. Fails when it cannot be read as one, or has no unique_id. May
// block.
Result<ParentIdentity> identify_parent(const Source& source, std::string name);

// A parent's names, each as those who read it expect it: the header's (libvhdi), W2ru (Windows),
// MacX (tapdisk).
class ParentLocators {
 public:
  // kUsage when no VHD can have the name: it is no UTF-8, too long, a URL, or has a backslash,
  // which separates folders on Windows.
  static Result<ParentLocators> of(const std::string& name);

  // Whole sectors.
  const std::vector<std::byte>& data() const { return data_; }

  // Fills the dynamic disk header's fields of the parent, but not its checksum. `data_offset`:
  // where data() lies in the file. REQUIRES: header.size() == kDynamicHeaderBytes.
  void put(const ParentIdentity& parent, uint64_t data_offset, MutableByteSpan header) const;

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

}  // namespace underlay::vhd
