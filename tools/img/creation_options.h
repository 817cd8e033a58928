// Options of an image that is to be created, as qemu-img takes them: -o KEY=VALUE,KEY=VALUE.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"

namespace underlay::img {

struct CreationKey {
  enum class Type : uint8_t { kText, kSwitch, kSize, kNumber };
  std::string_view name;
  Type type = Type::kText;
};

class CreationOptions {
 public:
  // Of `given`, the values of all -o. kUsage for keys that `format` does not have, and for values
  // that are not of a key's type.
  static Result<CreationOptions> parse(const std::vector<std::string>& given,
                                       std::string_view format, std::span<const CreationKey> keys);

  bool has(std::string_view key) const { return values_.find(key) != values_.end(); }
  // `otherwise` when it was not given.
  std::string text(std::string_view key, std::string_view otherwise) const;
  bool is_on(std::string_view key) const;  // off when not given
  uint64_t number(std::string_view key, uint64_t otherwise) const;

 private:
  struct Value {
    std::string text;
    uint64_t number = 0;  // of a size or a number; 1 of a switch that is on
  };
  Result<void> add(const std::string& part, std::string_view format,
                   std::span<const CreationKey> keys);

  std::map<std::string, Value, std::less<>> values_;  // the last one of a key counts
};

}  // namespace underlay::img
