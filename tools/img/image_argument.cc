#include "tools/img/image_argument.h"

#include "formats/file_name.h"
#include "formats/options/chain_options.h"
#include "formats/options/image_opts.h"
#include "io/http/remote_name.h"
#include "io/nbd_source.h"
#include "io/open_source.h"
#include "tools/img/say.h"

namespace underlay::img {
namespace {

constexpr std::string_view kImageOpts = "image-opts";

Result<std::vector<SecretFile>> secrets_of(const Given& given) {
  std::vector<SecretFile> secrets;
  for (const std::string& object : given.each("object")) {
    secrets.push_back(TRY(parse_secret_object("--object", object)));
  }
  return secrets;
}

// What the bytes of an export are, nobody guesses: the server has unpacked them, mostly.
std::string export_format(const ImageArgument& image) {
  return image.open.format.empty() ? std::string(kRawFormat) : image.open.format;
}

Result<OpenedFile> open_export(const ImageArgument& image) {
  OpenedFile file;
  file.source = TRY(open_nbd_source(image.location));
  file.path = image.path;
  return file;
}

Result<ContainedImage> open_lone_export(const ImageArgument& image, Caches& caches) {
  return look_into(TRY(open_export(image)), export_format(image), "", caches);
}

Result<OpenedDisk> open_export_disk(const ImageArgument& image, Caches& caches,
                                    const ChainVisitor& visit) {
  OpenOptions options = image.open;
  options.format = export_format(image);
  return open_disk(TRY(open_export(image)), options, NoNamedFiles(), caches, visit);
}

Result<OpenedDisk> open_local_disk(const ImageArgument& image, Caches& caches,
                                   const ChainVisitor& visit) {
  const Confinement confinement = TRY(Confinement::create(image.allowed, image.open.sharing));
  if (image.data_map) {
    OpenedFile file;
    file.source = with_data_map(TRY(open_source(image.location, image.open.sharing)),
                                *image.data_map, image.file_holes);
    file.path = image.path;
    return open_disk(std::move(file), image.open, confinement, caches, visit);
  }
  return open_disk(image.location, image.open, confinement, caches, visit);
}

}  // namespace

bool ImageArgument::is_export() const { return names_nbd_export(path); }

std::vector<Option> lone_image_options() {
  return {
      {.rule = {.name = "format", .letter = 'f', .takes_value = true},
       .value_name = "FORMAT",
       .help = "the image's format (default: guessed)"},
      {.rule = {.name = kImageOpts},
       .help = "FILE is a list of options, driver=FORMAT,file.filename=PATH say"},
      {.rule = {.name = "object", .takes_value = true, .repeat = Repeat::kEach},
       .value_name = "OBJECT",
       .help = "secret,id=ID,file=PASSPHRASE: a secret that --image-opts names; repeatable"},
      {.rule = {.name = "force-share", .letter = 'U'},
       .help = "look also at an image that another program has open for writing"},
  };
}

std::vector<Option> image_options() {
  std::vector<Option> options = lone_image_options();
  options.push_back(
      {.rule = {.name = "allow-path", .takes_value = true, .repeat = Repeat::kEach, .own = true},
       .value_name = "DIR",
       .help = "images may name files (backing files, extents) in DIR, too; "
               "repeatable"});
  options.push_back(
      {.rule = {.name = "parent", .takes_value = true, .repeat = Repeat::kEach, .own = true},
       .value_name = "CHILD=PATH",
       .help = "the parent of the image CHILD (path, or file name alone) is PATH; repeatable"});
  options.push_back({.rule = {.name = "reader", .takes_value = true, .own = true},
                     .value_name = "NAME",
                     .help = "who reads the image: 'own' (default), or 'libyal' (libqcow, libvhdi) "
                             "for a second opinion"});
  return options;
}

Option snapshot_option() {
  return {.rule = {.name = "snapshot", .letter = 'l', .takes_value = true},
          .value_name = "SNAPSHOT",
          .help =
              "of the disk as it was at the internal snapshot of this id or name, or "
              "snapshot.id=ID,snapshot.name=NAME"};
}

Result<ImageArgument> image_argument(const Given& given, const std::string& file,
                                     std::string_view format_option) {
  ImageArgument image;
  const std::vector<SecretFile> secrets = TRY(secrets_of(given));
  if (given.has(kImageOpts)) {
    if (given.has(format_option)) {
      return fail(ErrorKind::kUsage, "--image-opts and --{} are mutually exclusive", format_option);
    }
    ImageOpts opts = TRY(parse_image_opts(file, secrets));
    image.location = std::move(opts.path);
    image.open = std::move(opts.open);
  } else {
    image.location = names_nbd_export(file) ? file : TRY(plain_file_name(file));
    image.open.format = given.last(format_option);
  }
  image.path = shown_name(image.location);
  for (const std::string& parent : given.each("parent")) {
    image.open.parents.push_back(TRY(parse_parent_path("--parent", parent)));
  }
  image.open.reader = TRY(parse_reader("--reader", given.last_or("reader", "own")));
  if (given.has("force-share")) image.open.sharing = FileSharing::kAnyWriter;
  image.allowed = given.each("allow-path");
  return image;
}

void choose_snapshot(const Given& given, ImageArgument& image) {
  if (given.has("snapshot")) image.open.image.snapshot = given.last("snapshot");
}

Result<std::shared_ptr<const Disk>> open_image(const ImageArgument& image, Caches& caches,
                                               bool quiet, const ChainVisitor& visit) {
  OpenedDisk opened = TRY(image.is_export() ? open_export_disk(image, caches, visit)
                                            : open_local_disk(image, caches, visit));
  if (!quiet) say_warnings(opened.warnings);
  return std::move(opened.disk);
}

Result<LoneImage> open_lone_image(const ImageArgument& image, Caches& caches) {
  ContainedImage contained =
      TRY(image.is_export() ? open_lone_export(image, caches)
                            : open_top_file(image.location, image.open, caches));
  LoneImage lone;
  lone.file = std::move(contained.file);
  lone.files = std::move(contained.files);
  lone.members = std::move(contained.members);
  const std::string format = image.is_export() ? export_format(image) : image.open.format;
  lone.format = TRY(top_format(*lone.file.source, lone.file.path, format, lone.warnings));
  return lone;
}

FileToInspect file_to_inspect(const OpenedFile& file, const ImageOptions& options, Caches& caches,
                              const NamedFiles& files) {
  return {.source = file.source,
          .path = file.path,
          .files = files,
          .caches = caches,
          .options = options};
}

Result<OpenedFile> NoNamedFiles::open(const std::string& namer, std::string_view name) const {
  return in_file(fail(ErrorKind::kDenied, "names the file \"{}\", which is not opened here",
                      printable(name, 200)),
                 namer);
}

}  // namespace underlay::img
