// The format of an image that is to be made, and how it is to be made: -O, -o, -c.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "formats/writing/image_writer.h"
#include "io/source.h"

namespace underlay::img {

struct TargetRequest {
  std::string format;                // as -O was given
  std::vector<std::string> options;  // the values of all -o
  bool compress = false;             // -c
  std::string file_name;             // for formats that have it in the image
  std::string backing{};             // the name of a backing file; "" = none
  std::string backing_format{};
};

// Makes the writer of one image. Fails where the disk does not fit the format. `parent`: the file
// of the backing image, null unless TargetFormat::reads_backing.
using MakeWriter = std::function<Result<std::unique_ptr<ImageWriter>>(
    const DiskToWrite& disk, const Source* parent, Sink& sink)>;

struct TargetFormat {
  MakeWriter make_writer;
  bool is_sequential = false;  // ImageWriter::is_sequential()
  bool reads_backing = false;  // the image is written by what its backing image is
};

// kUsage for formats that are not written, and for what such an image cannot have, or has only
// otherwise here.
Result<TargetFormat> target_format(const TargetRequest& request);

// "raw, qcow2, ...": for messages.
std::string target_format_names();

}  // namespace underlay::img
