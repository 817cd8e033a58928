#include "formats/options/option_words.h"

#include <fmt/format.h>

#include "io/error.h"

namespace underlay {
namespace {

namespace po = boost::program_options;

po::option make_option(const OptionRule& rule, std::string value) {
  po::option option;
  option.string_key = rule.name;
  option.value.push_back(std::move(value));
  return option;
}

std::string take_first(std::vector<std::string>& words) {
  std::string word = std::move(words.front());
  words.erase(words.begin());
  return word;
}

// The option of that name, or the only one of qemu-nbd's that starts with it.
const OptionRule& find_long(std::span<const OptionRule> rules, std::string_view name) {
  const OptionRule* match = nullptr;
  std::string possibilities;
  for (const OptionRule& rule : rules) {
    if (rule.name == name) return rule;
    if (rule.own || !rule.name.starts_with(name)) continue;
    match = match == nullptr ? &rule : match;
    possibilities += fmt::format(" '--{}'", rule.name);
  }
  if (match == nullptr) {
    throw po::error(fmt::format("unrecognized option '--{}'", printable(name, 80)));
  }
  if (possibilities.size() > match->name.size() + 5) {
    throw po::error(fmt::format("option '--{}' is ambiguous; possibilities:{}", printable(name, 80),
                                possibilities));
  }
  return *match;
}

const OptionRule& find_letter(std::span<const OptionRule> rules, char letter) {
  for (const OptionRule& rule : rules) {
    if (rule.letter != 0 && rule.letter == letter) return rule;
  }
  throw po::error(fmt::format("invalid option -- '{}'", printable({&letter, 1})));
}

po::option take_long(std::span<const OptionRule> rules, std::string_view word,
                     std::vector<std::string>& words) {
  const size_t equals = word.find('=');
  const OptionRule& rule = find_long(rules, word.substr(0, equals));
  if (equals != std::string_view::npos) {
    if (!rule.takes_value) {
      throw po::error(fmt::format("option '--{}' doesn't allow an argument", rule.name));
    }
    return make_option(rule, std::string(word.substr(equals + 1)));
  }
  if (!rule.takes_value) return make_option(rule, std::string(kOn));
  if (words.empty()) throw po::error(fmt::format("option '--{}' requires an argument", rule.name));
  return make_option(rule, take_first(words));
}

// "rt", "fqcow2", "rfqcow2": letters without a value, then perhaps one with the rest as its value.
std::vector<po::option> take_letters(std::span<const OptionRule> rules, std::string_view letters,
                                     std::vector<std::string>& words) {
  std::vector<po::option> options;
  for (size_t i = 0; i < letters.size(); ++i) {
    const OptionRule& rule = find_letter(rules, letters[i]);
    if (!rule.takes_value) {
      options.push_back(make_option(rule, std::string(kOn)));
      continue;
    }
    const std::string_view rest = letters.substr(i + 1);
    if (rest.empty() && words.empty()) {
      throw po::error(fmt::format("option requires an argument -- '{}'", rule.letter));
    }
    options.push_back(make_option(rule, rest.empty() ? take_first(words) : std::string(rest)));
    break;
  }
  return options;
}

}  // namespace

std::vector<po::option> take_option(std::span<const OptionRule> rules,
                                    std::vector<std::string>& words) {
  if (words.front().size() < 2 || words.front()[0] != '-' || words.front() == "--") return {};
  const std::string word = take_first(words);
  if (!word.starts_with("--")) return take_letters(rules, std::string_view(word).substr(1), words);
  return {take_long(rules, std::string_view(word).substr(2), words)};
}

}  // namespace underlay
