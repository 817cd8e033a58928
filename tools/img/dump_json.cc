#include "tools/img/dump_json.h"

#include "tools/img/say.h"

namespace underlay::img {
DumpJson::DumpJson(DumpChoice choice, const Source& source, std::string_view path,
                   std::string_view format, std::FILE* out)
    : ChosenDump(std::move(choice), source), out_(out) {
  fmt::print(out_,
             "{{\n    \"version\": {},\n    \"filename\": {},\n    \"format\": {},\n"
             "    \"structures\": [",
             kJsonVersion, json_in_one_line(path), json_in_one_line(format));
}

void DumpJson::print(DumpedStructure structure) {
  end_structure();
  fmt::print(out_,
             "{}\n        {{\n            \"name\": {},\n            \"offset\": {},\n"
             "            \"length\": {}",
             first_structure_ ? "" : ",", json_in_one_line(structure.name), structure.offset,
             structure.length);
  if (choice().fields) fmt::print(out_, ",\n            \"fields\": [");
  in_structure_ = true;
  first_structure_ = false;
  first_field_ = true;
}

void DumpJson::print(DumpedField field) {
  nlohmann::ordered_json line{{"name", std::move(field.name)},
                              {"offset", field.offset},
                              {"length", field.length},
                              {"value", std::move(field.value)}};
  if (!field.meaning.empty()) line["meaning"] = std::move(field.meaning);
  if (choice().hex) line["bytes"] = std::move(field.bytes);
  fmt::print(out_, "{}\n                {}", first_field_ ? "" : ",", json_in_one_line(line));
  first_field_ = false;
}

void DumpJson::end_structure() {
  if (!in_structure_) return;
  if (choice().fields) fmt::print(out_, "{}]", first_field_ ? "" : "\n            ");
  fmt::print(out_, "\n        }}");
  in_structure_ = false;
}

void DumpJson::end(bool whole) {
  if (!whole) {
    fmt::print(out_, "\n");
    return;
  }
  end_structure();
  fmt::print(out_, "{}]\n}}\n", first_structure_ ? "" : "\n    ");
}

}  // namespace underlay::img
