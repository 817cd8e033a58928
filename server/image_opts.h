// qemu's --image-opts strings: "driver=qcow2,file.filename=disk.qcow2".
#pragma once

#include <string>
#include <string_view>

#include "formats/open_chain.h"
#include "io/error.h"

namespace underlay {

struct ImageOpts {
  std::string path;
  OpenOptions open;
};

// Keys that say what is read are obeyed; keys that say how qemu does its I/O are checked and have
// no effect; every other key is refused by its name, because leaving it out could show other data
// than the operator means. A comma in a value is written twice. Fails with kUsage or kUnsupported.
Result<ImageOpts> parse_image_opts(std::string_view text);

// The file that a FILE argument names, by qemu's rule: a name with a ':' before its first '/' has a
// protocol. "file:" is taken off; any other is refused (kUnsupported), as is an empty name.
Result<std::string> plain_file_name(std::string_view name);

// Is `value` one of those that qemu knows? `option` is for the message.
Result<void> check_cache_mode(std::string_view option, std::string_view value);
Result<void> check_aio_mode(std::string_view option, std::string_view value);
Result<void> check_discard_mode(std::string_view option, std::string_view value);
Result<void> check_detect_zeroes_mode(std::string_view option, std::string_view value);

}  // namespace underlay
