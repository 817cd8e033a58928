#include "tools/img/say.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "formats/options/option_values.h"

namespace underlay::img {

using Json = nlohmann::ordered_json;

// Not through stdio, which throws when standard error cannot be written.
void say_line(const std::string& line) {
  const std::string text = printable(line) + '\n';
  (void)!::write(STDERR_FILENO, text.data(), text.size());
}

void say_error(const std::string& line) { say_line("underlay-img: " + line); }

void say_warnings(const std::vector<std::string>& lines) {
  for (const std::string& line : lines) say_error("warning: " + line);
}

void print_json(const Json& document) {
  // In ASCII, as QEMU's: JSON alone lets DEL and the terminal's controls from U+0080 on through.
  fmt::print("{}\n", document.dump(4, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace));
}

std::string json_in_one_line(const Json& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
}

Result<OutputFormat> output_format(const Given& given) {
  const std::string text = given.last_or("output", "human");
  if (text == "human") return OutputFormat::kHuman;
  if (text == "json") return OutputFormat::kJson;
  return fail(ErrorKind::kUsage, "--output must be used with human or json as argument, not '{}'",
              printable(text, 80));
}

Option output_option() {
  return {.rule = {.name = "output", .takes_value = true},
          .value_name = "FORMAT",
          .help = "print for people ('human', the default) or for programs ('json')"};
}

Option quiet_option() {
  return {.rule = {.name = "quiet", .letter = 'q'}, .help = "print nothing but errors"};
}

Option progress_option() {
  return {.rule = {.name = "progress", .letter = 'p'},
          .help = "show the progress, also when standard error is no terminal"};
}

Option cache_option() {
  return {.rule = {.name = "cache", .letter = 'T', .takes_value = true},
          .value_name = "CACHE",
          .help = "taken for qemu-img's sake: images are read through the page cache"};
}

Result<void> check_cache_option(const Given& given) {
  if (!given.has("cache")) return {};
  return check_cache_mode("-T", given.last("cache"));
}

}  // namespace underlay::img
