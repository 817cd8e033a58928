#include "formats/file_name.h"

#include "io/http/remote_name.h"

namespace underlay {

bool names_protocol(std::string_view name) {
  const size_t at = name.find_first_of(":/");
  return at != std::string_view::npos && name[at] == ':';
}

Result<void> refuse_protocol(std::string_view what, std::string_view name) {
  if (!names_protocol(name)) return {};
  return fail(
      ErrorKind::kDenied,
      "names the {} \"{}\": what precedes the colon is a protocol, and an image's protocols "
      "are never followed; name a file instead (with ./ before a name that has a colon)",
      what, printable(name, 200));
}

Result<std::string> plain_file_name(std::string_view name) {
  constexpr std::string_view kFile = "file:";
  const bool stated = name.starts_with(kFile);
  if (stated) name.remove_prefix(kFile.size());
  if (name.empty()) return fail(ErrorKind::kUsage, "the image's file name is empty");
  // Whoever opens it goes by the name alone.
  if (stated) return is_remote_name(name) ? "./" + std::string(name) : std::string(name);
  if (name.starts_with("json:")) {
    return fail(ErrorKind::kUnsupported,
                "json: names are not supported: use --image-opts driver=FORMAT,file.filename=FILE");
  }
  if (names_protocol(name) && !is_remote_name(name)) {
    return fail(ErrorKind::kUnsupported,
                "\"{}\" has a protocol that is none of http, https and s3: write ./{} when it is a "
                "file of that name",
                printable(name, 200), printable(name, 200));
  }
  return std::string(name);
}

}  // namespace underlay
