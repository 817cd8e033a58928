// What an Inspector dumps of images in memory.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/inspected.h"

namespace underlay::test {

class Dumped final : public DumpSink {
 public:
  struct Field {
    std::string structure;
    std::string name;
    uint64_t offset = 0;
    uint64_t length = 0;
    nlohmann::ordered_json value;
    std::string meaning;
  };

  explicit Dumped(bool with_fields = true) : with_fields_(with_fields) {}

  Result<void> begin(std::string_view name, uint64_t offset, uint64_t) override {
    structures.emplace_back(name);
    begin_ = offset;
    begins_.emplace(name, offset);
    return {};
  }
  bool wants_fields(std::string_view) const override { return with_fields_; }
  Result<void> field(std::string_view name, uint64_t offset, uint64_t length,
                     const nlohmann::ordered_json& value, std::string_view meaning) override {
    CHECK(offset >= begin_);
    fields.push_back({.structure = structures.back(),
                      .name = std::string(name),
                      .offset = offset,
                      .length = length,
                      .value = value,
                      .meaning = std::string(meaning)});
    return fields.size() == fail_at ? Result<void>(fail_errno(EPIPE, "nobody reads"))
                                    : Result<void>();
  }

  // Of the first structure of that name; checked to be there.
  const Field& find(std::string_view structure, std::string_view name) const {
    for (const Field& field : fields) {
      if (field.structure == structure && field.name == name) return field;
    }
    FAIL("no field ", std::string(name), " of ", std::string(structure));
    return fields.front();
  }

  // The first byte of the first structure of that name.
  uint64_t offset_of(const std::string& structure) const { return begins_.at(structure); }

  std::vector<std::string> structures;
  std::vector<Field> fields;
  size_t fail_at = 0;  // the field that cannot be told, from 1 on

 private:
  bool with_fields_;
  uint64_t begin_ = 0;
  std::map<std::string, uint64_t> begins_;
};

// Every field lies in the image.
inline Result<void> dump_as(std::string_view format, const std::vector<std::byte>& image,
                            Dumped& dumped) {
  const Inspection inspection(image);
  auto done = inspector_of(format).dump(inspection.file, dumped);
  for (const Dumped::Field& field : dumped.fields) {
    INFO(field.structure, ".", field.name);
    CHECK(range_within(field.offset, field.length, image.size()));
  }
  return done;
}

}  // namespace underlay::test
