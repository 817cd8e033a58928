// A dump for programs: one JSON document, printed as it is found.
#pragma once

#include <cstdio>
#include <string_view>

#include "tools/img/dump_chosen.h"

namespace underlay::img {

class DumpJson final : public ChosenDump {
 public:
  // `path`, `format`: of the image. `out` stays the caller's.
  DumpJson(DumpChoice choice, const Source& source, std::string_view path, std::string_view format,
           std::FILE* out);

  // A dump that is not whole is no whole document: a program that reads only this stream knows it.
  void end(bool whole) override;

 private:
  void print(DumpedStructure structure) override;
  void print(DumpedField field) override;
  void end_structure();

  std::FILE* out_;
  bool in_structure_ = false;
  bool first_structure_ = true;
  bool first_field_ = true;
};

}  // namespace underlay::img
