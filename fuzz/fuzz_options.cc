// Any bytes as values of options that have a syntax of their own: --image-opts, --object secret,
// -l, --parent, --reader; and, line by line, as the words of a command line. Aborts when a rule
// breaks.
#include <algorithm>
#include <array>

#include "formats/comma_list.h"
#include "formats/options/chain_options.h"
#include "formats/options/image_opts.h"
#include "formats/options/option_words.h"
#include "formats/snapshot_choice.h"
#include "fuzz/rules.h"

namespace underlay {
namespace {

// A secret has what is needed to read it.
void check_secret(std::string_view text) {
  const auto secret = parse_secret_object("--object", text);
  if (!secret) return check_error(secret.error());
  require(!secret->id.empty() && !secret->path.empty(), "a secret has an id and a file");
}

void check_image_opts(std::string_view text) {
  const std::array secrets{SecretFile{.id = "a", .path = "b"}};
  const auto opts = parse_image_opts(text, secrets);
  if (!opts) return check_error(opts.error());
  require(!opts->path.empty(), "an image has a file");
  require(opts->open.format.empty() || find_format(opts->open.format) != nullptr,
          "a stated format is one that is known");
  require(opts->open.image.key_secret.empty() || opts->open.image.key.has_value(),
          "a secret that is named is there");
}

void check_snapshot(std::string_view text) {
  const auto choice = parse_snapshot_choice(text);
  if (!choice) return check_error(choice.error());
  require(choice->id_or_name.has_value() != (choice->id || choice->name),
          "a snapshot is meant by one form");
  const std::array labels{SnapshotLabel{.id = "1", .name = "one"},
                          SnapshotLabel{.id = "2", .name = "1"},
                          SnapshotLabel{.id = "1", .name = "again"}};
  const auto found = find_snapshot(*choice, labels);
  if (!found) return check_error(found.error());
  require(*found < labels.size(), "what is found is there");
}

void check_chain_options(std::string_view text) {
  const auto parent = parse_parent_path("--parent", text);
  if (!parent) check_error(parent.error());
  if (parent) require(!parent->child.empty() && !parent->path.empty(), "CHILD=PATH has both");
  const auto reader = parse_reader("--reader", text);
  if (!reader) check_error(reader.error());
}

// The lines of `text` as the words of a command line.
void check_words(std::string_view text) {
  constexpr std::array rules{
      OptionRule{.name = "format", .letter = 'f', .takes_value = true},
      OptionRule{.name = "fork"},
      OptionRule{.name = "read-only", .letter = 'r'},
      OptionRule{.name = "persistent", .letter = 't'},
      OptionRule{.name = "parent", .takes_value = true, .own = true},
      OptionRule{.name = "tls-creds", .takes_value = true, .refusal = "is not served"}};
  std::vector<std::string> words;
  for (size_t at = 0; at <= text.size() && words.size() < 20;) {
    const size_t end = std::min(text.find('\n', at), text.size());
    words.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  try {
    while (!words.empty()) {
      const size_t before = words.size();
      const auto options = take_option(rules, words);
      require(words.size() <= before, "no word is added");
      require(options.empty() || words.size() < before, "an option takes its words");
      if (options.empty()) words.erase(words.begin());
    }
  } catch (const boost::program_options::error&) {
    // What is no option.
  }
}

void run(ByteSpan bytes) {
  const std::string_view text = as_text(bytes);
  require(!split_at_commas(text).empty(), "a list has a part");
  check_image_opts(text);
  check_secret(text);
  check_snapshot(text);
  check_chain_options(text);
  check_words(text);
}

}  // namespace
}  // namespace underlay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  underlay::run(std::as_bytes(std::span(data, size)));
  return 0;
}
