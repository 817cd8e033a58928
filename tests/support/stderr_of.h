// What a test's own process says.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "io/unique_fd.h"
#include "tests/support/temp_folder.h"

namespace underlay {

using Lines = std::vector<std::string>;

// What `work` writes to standard error, line by line.
inline Lines stderr_of(const std::function<void()>& work) {
  const TempFolder folder;
  const std::string path = folder.path("stderr");
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  const UniqueFd saved(::dup(STDERR_FILENO));
  REQUIRE(::dup2(file.get(), STDERR_FILENO) >= 0);
  work();
  REQUIRE(::dup2(saved.get(), STDERR_FILENO) >= 0);
  std::ifstream in(path);
  Lines lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace underlay
