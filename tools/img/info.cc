#include "tools/img/info.h"

#include <fmt/format.h>

#include "tools/img/image_argument.h"
#include "tools/img/info_text.h"
#include "tools/img/say.h"
#include "tools/img/shown_names.h"

namespace underlay::img {
namespace {

constexpr std::string_view kBackingChain = "backing-chain";

std::vector<Option> options() {
  std::vector<Option> all = image_options();
  all.push_back(
      {.rule = {.name = kBackingChain},
       .help = "tell of the image's parents (backing files), too, each of which is opened"});
  all.push_back(output_option());
  return all;
}

Result<int> tell_image(const ImageArgument& argument, OutputFormat output, Caches& caches) {
  const LoneImage image = TRY(open_lone_image(argument, caches));
  say_warnings(image.warnings);
  const ImageInfo info =
      TRY(image_info({.file = image.file, .format = *image.format, .options = argument.open.image},
                     argument.path, caches));
  if (output == OutputFormat::kJson) {
    print_json(info_json(info));
  } else {
    fmt::print("{}", info_text(info));
  }
  return kDone;
}

// People read of the images that are there also when one of their parents is not. An array is
// printed when it is whole.
Result<int> tell_chain(const ImageArgument& argument, OutputFormat output, Caches& caches) {
  const ShownNames names(argument.path);
  bool is_top = true;
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  const auto tell = [&](const ChainImage& image) -> Result<void> {
    const ImageInfo info =
        TRY(image_info(image, is_top ? argument.path : names.of(image.file.path), caches));
    if (output == OutputFormat::kJson) {
      all.push_back(info_json(info));
    } else {
      fmt::print("{}{}", is_top ? "" : "\n", info_text(info));
    }
    is_top = false;
    return {};
  };
  TRY(open_image(argument, caches, /*quiet=*/false, tell));
  if (output == OutputFormat::kJson) print_json(all);
  return kDone;
}

Result<int> run(const Given& given) {
  const OutputFormat output = TRY(output_format(given));
  const ImageArgument argument = TRY(image_argument(given, given.operands()[0]));
  Caches caches;
  return given.has(kBackingChain) ? tell_chain(argument, output, caches)
                                  : tell_image(argument, output, caches);
}

}  // namespace

Command info_command() {
  return {.name = "info",
          .operands = "FILE",
          .summary = "tell what an image says of itself",
          .options = options,
          .run = run};
}

}  // namespace underlay::img
