// What the dump programs over the libyal readers share: the copying, and the text of their errors.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace underlay::libyal {

// Throws what the library says when `status` is not its 1 for success. `print` is the library's
// error_sprint, `release` its error_free.
template <class Error>
void require(int status, Error*& error, int (*print)(Error*, char*, size_t),
             void (*release)(Error**), const std::string& doing) {
  if (status == 1) return;
  char text[1024] = "no reason given";
  if (error != nullptr) print(error, text, sizeof(text));
  release(&error);
  throw std::runtime_error(doing + ": " + text);
}

// Small: libvhdi 20210425 shows the parent's bytes where a read crosses into a block of the child.
inline constexpr size_t kStep = 4096;

// Writes `size` bytes to `output`, which `read(buffer, size, offset)` fills; it returns how many it
// read, and everything but all of them is a failure.
template <class Read>
void copy_to(const std::string& output, uint64_t size, Read&& read) {
  std::ofstream out(output, std::ios::binary | std::ios::trunc);
  std::vector<char> buffer(kStep);
  for (uint64_t offset = 0; offset < size; offset += buffer.size()) {
    const size_t part = static_cast<size_t>(std::min<uint64_t>(buffer.size(), size - offset));
    if (read(buffer.data(), part, offset) != static_cast<ssize_t>(part)) {
      throw std::runtime_error("cannot read at byte " + std::to_string(offset));
    }
    out.write(buffer.data(), static_cast<std::streamsize>(part));
  }
  out.close();
  if (!out) throw std::runtime_error("cannot write " + output);
}

// The arguments are an image, the images that it stands on, nearest first, and the output. `Image`
// is made of a path and has set_parent(Image&), size() and read(buffer, size, offset).
template <class Image>
void dump_chain(const std::vector<std::string>& arguments) {
  std::vector<std::unique_ptr<Image>> chain;  // the root first: children are freed before it
  for (size_t i = arguments.size() - 1; i-- > 0;) {
    chain.push_back(std::make_unique<Image>(arguments[i]));
    if (chain.size() > 1) chain.back()->set_parent(*chain[chain.size() - 2]);
  }
  Image& image = *chain.back();
  copy_to(arguments.back(), image.size(), [&](char* buffer, size_t size, uint64_t offset) {
    return image.read(buffer, size, offset);
  });
  while (!chain.empty()) chain.pop_back();
}

// Runs `dump(arguments)`. Exit 0 done, 1 failed, 2 usage.
template <class Dump>
int run(int argc, char** argv, int least_arguments, const char* usage, Dump&& dump) {
  if (argc - 1 < least_arguments) {
    std::cerr << "usage: " << usage << '\n';
    return 2;
  }
  try {
    dump(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& failure) {
    std::cerr << argv[0] << ": " << failure.what() << '\n';
    return 1;
  }
  return 0;
}

}  // namespace underlay::libyal
