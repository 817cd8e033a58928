// The structures of a tar archive, as bytes: POSIX.1-2017, pax, "ustar Interchange Format" and "pax
// Extended Header"; GNU tar's manual, "Basic Tar Format", for long names and large sizes.
// Pure: bytes in, checked values out; no I/O.
//
//   A member is a header of 512 bytes and its data, padded to whole records of 512 bytes. The
//   archive ends with records of zeros (two of them; one is taken for the end, too).
//
//   header; numbers are octal digits with spaces or NULs around them, or (GNU) the byte 0x80 and a
//   big-endian integer
//     0 100 name            124  12 size             157 100 linkname
//   100   8 mode            136  12 mtime            257   6 magic "ustar"
//   108   8 uid             148   8 chksum           263   2 version
//   116   8 gid             156   1 typeflag         345 155 prefix: name is prefix/name (POSIX)
//
//   typeflag  0 NUL 7 file    1 2 links   3 4 6 devices and FIFO   5 folder
//             x pax records for the next member    g pax records for all members
//             X the same as x, by Solaris
//             L GNU: the data is the next member's name    K the same for its linkname
//             S GNU: sparse file    M GNU: goes on from another volume
//   A pax record is "LENGTH KEY=VALUE\n"; LENGTH counts all of it.
//   chksum is the sum of the header's bytes, its own taken for spaces; old writers: as signed ones.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay::tar {

inline constexpr uint64_t kRecordBytes = 512;

struct Header {
  std::string name;
  uint64_t size = 0;  // of the data that follows
  char typeflag = 0;

  bool is_file() const { return typeflag == '0' || typeflag == '\0' || typeflag == '7'; }
};

// Is this the first header of an archive? `head`: the first bytes of a file.
bool is_first_header(ByteSpan head);

// nullopt: a record of zeros, the end. REQUIRES: bytes.size() == kRecordBytes.
Result<std::optional<Header>> parse_header(ByteSpan bytes);

// What extended headers say of the next member.
struct Extended {
  std::optional<std::string> path;
  std::optional<uint64_t> size;
  bool sparse = false;  // its data is not its content as it is
};
Result<void> parse_pax_records(ByteSpan bytes, Extended& extended);

}  // namespace underlay::tar
