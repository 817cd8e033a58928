#include "tools/thin/command_options.h"

#include <charconv>

#include "tools/common/text.h"

namespace underlay::thin {

std::string text_of(const CommandOptions& options, const char* name) {
  return options.contains(name) ? options[name].as<std::string>() : "";
}

Result<std::optional<uint64_t>> size_of(const CommandOptions& options, const char* name) {
  if (!options.contains(name)) return std::optional<uint64_t>();
  return std::optional<uint64_t>(
      TRY(parse_size(text_of(options, name), fmt::format("--{}", name))));
}

Result<std::optional<unsigned>> number_of(const CommandOptions& options, const char* name) {
  if (!options.contains(name)) return std::optional<unsigned>();
  const std::string text = text_of(options, name);
  unsigned number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || rest != end) {
    return fail(ErrorKind::kUsage, "--{} '{}': a whole number is needed", name,
                printable(text, 80));
  }
  return std::optional<unsigned>(number);
}

boost::program_options::typed_value<std::string>* value(const char* value_name) {
  return boost::program_options::value<std::string>()->value_name(value_name);
}

}  // namespace underlay::thin
