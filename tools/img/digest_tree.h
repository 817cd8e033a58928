// underlay-img digest --tree: writes a hash tree of a disk, or verifies the disk against one.
#pragma once

#include "tools/img/command.h"
#include "tools/img/hasher.h"
#include "tools/img/image_argument.h"

namespace underlay::img {

// The exit status, as of Command::run.
Result<int> write_tree(const Given& given, const ImageArgument& image,
                       const HashAlgorithm& algorithm);
Result<int> verify_tree(const Given& given, const ImageArgument& image);

// The value of `option`, a digest of the algorithm. kUsage for anything else.
Result<ShortBytes> digest_argument(const Given& given, std::string_view option,
                                   const HashAlgorithm& algorithm);

}  // namespace underlay::img
