// A subcommand of underlay-img: its options, and what it runs.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/options/option_words.h"
#include "io/error.h"

namespace underlay::img {

// Exit statuses, qemu-img's. `check`, `compare` and `audit` have more.
inline constexpr int kDone = 0;
inline constexpr int kFailed = 1;

struct Option {
  OptionRule rule;
  std::string_view value_name = {};  // for --help; "" when it takes no value
  std::string_view help;
};

// What was given on a command line, by the options' long names.
class Given {
 public:
  Given() = default;

  bool has(std::string_view name) const { return !each(name).empty(); }
  // The value that counts, "" when the option was not given.
  std::string last(std::string_view name) const;
  std::string last_or(std::string_view name, std::string_view otherwise) const;
  std::vector<std::string> each(std::string_view name) const;
  const std::vector<std::string>& operands() const { return operands_; }

  void add(std::string_view name, std::string value) {
    options_.push_back({std::string(name), std::move(value)});
  }
  void add_operand(std::string word) { operands_.push_back(std::move(word)); }

 private:
  struct Value {
    std::string name;
    std::string value;
  };
  std::vector<Value> options_;
  std::vector<std::string> operands_;
};

struct Command {
  std::string_view name;      // "info"
  std::string_view operands;  // "FILE", "FILE1 FILE2", "[FILE]": a word for each
  std::string_view summary;   // one line
  std::vector<Option> (*options)();
  // What it is for, behind the list of options: exit statuses, formats. "" for nothing.
  std::string_view notes = {};
  int usage_status = kFailed;  // of a command line that is no valid use
  int error_status = kFailed;  // of an Error from run()
  // The exit status. Operands are as many as `operands` says.
  Result<int> (*run)(const Given& given) = nullptr;
};

// All, in the order of --help (command_table.cc).
std::span<const Command> commands();

}  // namespace underlay::img
