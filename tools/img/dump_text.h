// A dump for people: a heading for each structure, a line for each field.
#pragma once

#include <cstdio>
#include <optional>
#include <vector>

#include "tools/img/dump_chosen.h"

namespace underlay::img {

class DumpText final : public ChosenDump {
 public:
  // `all`: entries of tables that are equal are not summed up. `out` stays the caller's.
  DumpText(DumpChoice choice, const Source& source, bool all, std::FILE* out)
      : ChosenDump(std::move(choice), source), all_(all), out_(out) {}

  void end(bool whole) override;

 private:
  // Fields that are printed as one: entries of a table whose numbers follow each other.
  struct Run {
    DumpedField first;
    std::string table;               // what stands before the entry's number
    std::optional<uint64_t> number;  // of the first entry; nullopt: a field that is no entry
    uint64_t count = 1;
  };
  // What a line has, but for the bytes: offset, name, value with its meaning.
  struct Line {
    std::string offset;
    std::string name;
    std::string value;
    std::string bytes;
  };

  void print(DumpedStructure structure) override;
  void print(DumpedField field) override;
  bool continues(const Run& field) const;
  void end_run();
  void print_lines();

  bool all_;
  std::FILE* out_;
  bool first_structure_ = true;
  std::optional<Run> run_;
  std::vector<Line> lines_;  // of one structure, until their width is known
  size_t name_width_ = 0;
};

}  // namespace underlay::img
