// qemu's --image-opts strings: "driver=qcow2,file.filename=disk.qcow2".
#pragma once

#include <span>
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
// Keys of secrets (encrypt.key-secret) must name one of `secrets`.
Result<ImageOpts> parse_image_opts(std::string_view text, std::span<const SecretFile> secrets = {});

}  // namespace underlay
