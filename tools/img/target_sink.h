// Where a converted image goes: a file, or standard output.
#pragma once

#include <memory>
#include <string>

#include "formats/disk.h"
#include "formats/writing/sink.h"
#include "tools/img/new_file.h"

namespace underlay::img {

inline constexpr std::string_view kStandardOutput = "-";

// `path` is that of a file, or kStandardOutput.
//
// A file is there in full or not at all: it gets its name in Sink::finish(). One that exists (of a
// link: what it leads to) is replaced then, unless it belongs to `source`, or somebody has it open
// as an image. Standard output must be no terminal, nor such a file.
Result<std::unique_ptr<Sink>> open_target(const std::string& path, const Disk& source,
                                          NewFile::Durability durability);

}  // namespace underlay::img
