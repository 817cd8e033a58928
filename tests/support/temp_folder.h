// A folder that disappears with its content at the end of a test.
#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace underlay {

class TempFolder {
 public:
  TempFolder() {
    std::string name = std::filesystem::temp_directory_path() / "underlay-unit-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    // Tests compare with resolved paths.
    path_ = std::filesystem::canonical(name);
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::string path(std::string_view name = "") const {
    return name.empty() ? path_.string() : (path_ / name).string();
  }
  // Creates folders on the way.
  std::string write(std::string_view name, std::string_view content) const {
    std::filesystem::create_directories(std::filesystem::path(path(name)).parent_path());
    std::ofstream out(path(name), std::ios::binary);
    out << content;
    out.close();
    REQUIRE(out.good());
    return path(name);
  }

 private:
  std::filesystem::path path_;
};

}  // namespace underlay
