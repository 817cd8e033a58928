// Several files in memory out of one input, and who opens them by the names that images say.
//
//   files, one behind the other, the first is the top image:
//     u8 length of the name, the name
//     u8 form: 1 = the bytes are a VHDX in short form (vhdx_input.cc); else they are the file
//     u8[3] number of bytes, little-endian; the last file may have fewer
//     the bytes
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/confined_open.h"

namespace underlay {

// Stands for Confinement (io/confined_open.h): a flat folder, out of which no name leads.
class FilesOfInput final : public NamedFiles {
 public:
  explicit FilesOfInput(ByteSpan input);

  bool empty() const { return files_.empty(); }
  size_t count() const { return files_.size(); }
  OpenedFile top() const { return files_.front(); }

  // Aborts when a name is asked for that no image may have followed, or for the sake of a file that
  // was never opened, or far too often.
  Result<OpenedFile> open(const std::string& namer, std::string_view name) const override;

 private:
  std::vector<OpenedFile> files_;
  mutable size_t opened_ = 0;
};

}  // namespace underlay
