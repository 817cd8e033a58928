#include "tools/img/dump.h"

#include <fmt/format.h>

#include <memory>

#include "formats/inspection/inspector.h"
#include "tools/common/interruption.h"
#include "tools/img/dump_json.h"
#include "tools/img/dump_text.h"
#include "tools/img/image_argument.h"
#include "tools/img/say.h"

namespace underlay::img {
namespace {

std::vector<Option> options() {
  std::vector<Option> all = lone_image_options();
  all.push_back(output_option());
  all.push_back({.rule = {.name = "structure", .takes_value = true, .repeat = Repeat::kEach},
                 .value_name = "PATTERN",
                 .help = "only structures whose names match this pattern of the shell, in any "
                         "case; repeatable"});
  all.push_back({.rule = {.name = "list"},
                 .help = "tell only which structures there are and where they lie"});
  all.push_back({.rule = {.name = "all"},
                 .help = "a line for each entry of a table, also when many are equal"});
  all.push_back({.rule = {.name = "hex"}, .help = "print the bytes of each field, too"});
  return all;
}

Result<int> run(const Given& given) {
  const OutputFormat output = TRY(output_format(given));
  const ImageArgument argument = TRY(image_argument(given, given.operands()[0]));
  Caches caches;
  const LoneImage image = TRY(open_lone_image(argument, caches));
  say_warnings(image.warnings);
  const FileToInspect file = file_to_inspect(image.file, argument.open.image, caches);
  const Inspector& inspector = inspector_of(image.format->name);
  DumpChoice choice{
      .structures = given.each("structure"), .fields = !given.has("list"), .hex = given.has("hex")};
  std::unique_ptr<ChosenDump> sink;
  if (output == OutputFormat::kJson) {
    sink = std::make_unique<DumpJson>(std::move(choice), *file.source, argument.path,
                                      image.format->name, stdout);
  } else {
    sink = std::make_unique<DumpText>(std::move(choice), *file.source, given.has("all"), stdout);
  }
  const auto dumped = inspector.dump(file, *sink);
  sink->end(dumped.has_value());
  if (!dumped && is_interrupted()) {
    // How many there are is known at the end.
    say_error(fmt::format("interrupted: {} structures dumped", sink->structures()));
  }
  if (!dumped) return Failure(dumped.error());
  if (!sink->found()) {
    return in_file(
        fail(ErrorKind::kNotFound, "no structure has a name like that; --list prints the names"),
        argument.path);
  }
  return kDone;
}

}  // namespace

Command dump_command() {
  return {.name = "dump",
          .operands = "FILE",
          .summary = "print an image's header and tables, field by field",
          .options = options,
          .run = run};
}

}  // namespace underlay::img
