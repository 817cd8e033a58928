#include "tools/img/tree_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace underlay::img {
namespace {

void print_member(std::string_view name, const nlohmann::ordered_json& value) {
  fmt::print(",\n    \"{}\": {}", name, json_in_one_line(value));
}

}  // namespace

void TreeReport::begin(const HashTreeSuperblock& superblock, const ShortBytes& root) {
  if (output_ != OutputFormat::kJson) return;
  fmt::print("{{\n    \"version\": {}", kJsonVersion);
  print_member("filename", image_);
  print_member("tree", tree_);
  print_member("algorithm", superblock.algorithm.name);
  print_member("root-hash", root.to_hex());
  fmt::print(",\n    \"damage\": [");
}

void TreeReport::add(const TreeDamage& damage) {
  const bool is_data = damage.kind == TreeDamage::Kind::kData;
  (is_data ? damaged_ : unverifiable_) += damage.length;
  if (!output_) return;
  if (*output_ == OutputFormat::kHuman) {
    if (is_data) {
      fmt::print("damaged: {} bytes at {}\n", damage.length, damage.offset);
    } else {
      fmt::print("not verifiable: {} bytes at {}: {} is damaged, {} bytes at {}\n", damage.length,
                 damage.offset, printable(tree_), damage.tree_length, damage.tree_offset);
    }
    return;
  }
  nlohmann::ordered_json range{
      {"kind", is_data ? "data" : "tree"}, {"start", damage.offset}, {"length", damage.length}};
  if (!is_data) {
    range["tree-start"] = damage.tree_offset;
    range["tree-length"] = damage.tree_length;
  }
  fmt::print("{}\n        {}", is_first_ ? "" : ",", json_in_one_line(range));
  is_first_ = false;
}

void TreeReport::end(const WalkCounts& counts, const Error* failure) {
  if (!output_) return;
  if (*output_ == OutputFormat::kHuman) {
    if (failure != nullptr) return;
    if (is_clean()) {
      fmt::print("{}: OK\n", printable(image_));
    } else {
      fmt::print("{}: FAILED: {} bytes damaged, {} bytes not verifiable\n", printable(image_),
                 damaged_, unverifiable_);
    }
    return;
  }
  fmt::print("{}]", is_first_ ? "" : "\n    ");
  print_member("damaged-bytes", damaged_);
  print_member("unverifiable-bytes", unverifiable_);
  print_member("bytes-verified", counts.done);
  print_member("bytes-read", counts.stored);
  print_member("matches", failure == nullptr && is_clean());
  if (failure != nullptr) print_member("error", failure->to_string());
  fmt::print("\n}}\n");
}

}  // namespace underlay::img
