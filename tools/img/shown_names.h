// How files are called in what is told of a chain.
#pragma once

#include <string>
#include <string_view>

namespace underlay::img {

// Files are known by paths without symbolic links. What lies beneath the folder of the image that
// the operator named is called from there, as qemu-img does: "images/base.qcow2" beside
// "images/top.qcow2".
class ShownNames {
 public:
  // `image`: as the operator named it.
  explicit ShownNames(const std::string& image);

  std::string of(std::string_view file) const;

 private:
  std::string given_;     // the image's folder with its slash, "" when it was named without one
  std::string resolved_;  // the same without symbolic links; "" when it is none
};

}  // namespace underlay::img
