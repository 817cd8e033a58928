// What codes and numbers of a VHD mean, in words.
#pragma once

#include <string>
#include <string_view>

#include "formats/vhd/vhd_layout.h"

namespace underlay::vhd {

// "2001-01-01T00:00:00Z". `time_stamp`: seconds since 2000-01-01, UTC.
std::string date_of(uint32_t time_stamp);

// Four characters that name something, without what pads them; printable.
std::string code_text(std::string_view code);

// Who wrote the image: "tapdisk 1.3", or what the image says where nobody is known by that name.
std::string creator_of(const Footer& footer);
// "Windows", "Mac OS", "" for others.
std::string_view host_os_of(std::string_view code);

std::string version_text(uint32_t version);  // "1.3"
std::string_view type_name(uint32_t disk_type);

}  // namespace underlay::vhd
