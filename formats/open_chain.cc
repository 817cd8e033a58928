#include "formats/open_chain.h"

#include <algorithm>

#include "io/http/remote_name.h"
#include "io/nbd_source.h"
#include "io/open_source.h"

namespace underlay {
namespace {

// How the format of a layer was found.
struct ChosenFormat {
  const Format* format = nullptr;
  bool guessed = false;
};

Result<const Format*> named_format(const std::string& name, const std::string& path) {
  const Format* format = find_format(name);
  if (format == nullptr) {
    return in_file(fail(ErrorKind::kUnsupported, "format \"{}\" is not one of: {}",
                        printable(name, 80), format_names()),
                   path);
  }
  return format;
}

// kNotFound would say that the image is missing, which is there and names a file that is missing.
Failure missing_named_file(Error error) {
  if (error.kind == ErrorKind::kNotFound) {
    error.kind = error.sys_errno != 0 ? ErrorKind::kIo : ErrorKind::kMalformed;
  }
  return Failure(std::move(error));
}

// For readers, which open extents and data files.
class FilesOfImages final : public NamedFiles {
 public:
  explicit FilesOfImages(const NamedFiles& files) : files_(files) {}

  Result<OpenedFile> open(const std::string& namer, std::string_view name) const override {
    auto opened = files_.open(namer, name);
    if (!opened) return missing_named_file(std::move(opened).error());
    return opened;
  }

 private:
  const NamedFiles& files_;
};

Result<OpenedFile> open_named_by_operator(const std::string& path, FileSharing sharing,
                                          const Caches& caches) {
  OpenedFile file;
  file.source = TRY(open_source(path, sharing, caches.remote.get()));
  file.path = names_nbd_export(path) ? path : TRY(with_resolved_folder(path));
  return file;
}

std::string file_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

// Does `stated`, a path or a file name alone, mean the image at `path` (an OpenedFile::path)?
Result<bool> is_meant(const std::string& stated, const std::string& path) {
  if (stated.find('/') == std::string::npos) {
    return file_name(path) == stated;
  }
  return TRY(with_resolved_folder(stated)) == path;
}

// One opening: what the layers share.
class ChainOpener {
 public:
  ChainOpener(const OpenOptions& options, const NamedFiles& files, Caches& caches,
              const ChainVisitor& visit)
      : options_(options), files_(files), caches_(caches), visit_(visit) {}

  Result<OpenedDisk> open(OpenedFile top) {
    const Format* const format = TRY(top_format(*top.source, top.path, options_.format, warnings_));
    TRY(add_layer(std::move(top), *format, options_.image));
    while (const auto link = layers_.back().reader->parent()) {
      if (layers_.size() == kMaxChainDepth) {
        return in_file(fail(ErrorKind::kLimit, "the chain has more than {} images", kMaxChainDepth),
                       layers_.front().path);
      }
      TRY(add_parent(*link));
    }
    const uint64_t size = layers_.front().reader->size();
    if (options_.start > size) {
      return in_file(fail(ErrorKind::kLimit, "offset {} (-o) lies beyond its size, {} bytes",
                          options_.start, size),
                     layers_.front().path);
    }
    auto disk = std::make_shared<const Disk>(std::move(layers_), caches_, options_.start);
    return OpenedDisk{.disk = std::move(disk), .warnings = std::move(warnings_)};
  }

 private:
  Result<ChosenFormat> choose_parent_format(const Layer& child, const ParentLink& link,
                                            const OpenedFile& file) {
    if (link.format) return ChosenFormat{.format = TRY(named_format(*link.format, child.path))};
    if (layers_.size() == 1 && !options_.backing_format.empty()) {
      return ChosenFormat{.format = TRY(named_format(options_.backing_format, child.path))};
    }
    const Guess guess = TRY(guess_format(*file.source));
    if (guess.format == nullptr) return unstated_format(child, link, "could be raw");
    warnings_.push_back(
        fmt::format("{}: does not state the format of its backing file \"{}\"; probing guessed {}",
                    printable(child.path), stated_name(link), guess.format->name));
    return ChosenFormat{.format = guess.format, .guessed = true};
  }

  // For messages.
  static std::string stated_name(const ParentLink& link) {
    return link.names.empty() ? "" : printable(link.names.front());
  }

  static Failure unstated_format(const Layer& child, const ParentLink& link, std::string_view why) {
    return in_file(fail(ErrorKind::kDenied,
                        "does not state the format of its backing file \"{}\", which {}, and "
                        "guessing would trust what a guest may have written; state it with "
                        "qemu-img rebase -u -F FORMAT, or --image-opts ...,backing.driver=FORMAT",
                        stated_name(link), why),
                   child.path);
  }

  Result<void> add_parent(const ParentLink& link) {
    // Before anything else is opened, so that an audit, which opens nothing else, hears of it.
    if (link.format) TRY(named_format(*link.format, layers_.back().path));
    OpenedFile file = TRY(open_parent(layers_.back().path, link.names));
    const ChosenFormat chosen = TRY(choose_parent_format(layers_.back(), link, file));
    TRY(add_layer(std::move(file), *chosen.format, options_of_parent(link)));
    const Layer& child = layers_[layers_.size() - 2];
    const Reader& parent = *layers_.back().reader;
    if (chosen.guessed && (parent.parent() || parent.sources().size() > 1)) {
      return unstated_format(child, link, "names further files");
    }
    const bool is_other = !link.other_identity.empty() && link.other_identity == parent.identity();
    if (!link.identity.empty() && link.identity != parent.identity() && !is_other) {
      return in_file(fail(ErrorKind::kMalformed,
                          "its parent \"{}\" has identity {}, not {}: it is another image, or was "
                          "changed after the child was made; --parent CHILD=PATH names the right "
                          "one",
                          printable(layers_.back().path), printable(parent.identity()),
                          printable(link.identity)),
                     child.path);
    }
    if (!link.revision.empty() && link.revision != parent.revision()) {
      warnings_.push_back(printable(fmt::format(
          "{}: its parent \"{}\" is at revision {}, not {}: it was probably written to after the "
          "child was made, and then this disk is not what it was",
          child.path, layers_.back().path, parent.revision(), link.revision)));
    }
    return {};
  }

  // The operator speaks of the encryption of the first parent only.
  ImageOptions options_of_parent(const ParentLink& link) const {
    ImageOptions options = link.options;
    if (layers_.size() > 1) return options;
    options.encrypt_format = options_.backing.encrypt_format;
    options.key_secret = options_.backing.key_secret;
    options.key = options_.backing.key;
    return options;
  }

  Result<OpenedFile> open_parent(const std::string& child, const std::vector<std::string>& names) {
    for (const ParentPath& stated : options_.parents) {
      if (!TRY(is_meant(stated.child, child))) continue;
      auto opened = open_named_by_operator(stated.path, options_.sharing, caches_);
      if (!opened) {
        return with_context(missing_named_file(std::move(opened).error()), "--parent: ");
      }
      return opened;
    }
    return open_first(child, names);
  }

  // The first of `names` that exists. What is forbidden ends the search: it might be the right one.
  Result<OpenedFile> open_first(const std::string& child, const std::vector<std::string>& names) {
    const std::string option =
        fmt::format("--parent {}=PATH says where it is", printable(file_name(child)));
    if (names.empty()) {
      return in_file(fail(ErrorKind::kMalformed, "does not name its parent; {}", option), child);
    }
    Result<OpenedFile> opened = fail(ErrorKind::kNotFound, "");
    for (const std::string& name : names) {
      opened = files_.open(child, name);
      if (opened || opened.error().kind != ErrorKind::kNotFound) break;
    }
    if (opened) return opened;
    Error error = std::move(opened).error();
    if (error.kind == ErrorKind::kNotFound) {
      const std::string tried =
          names.size() == 1 ? "" : fmt::format(" by any of its {} names", names.size());
      error.message =
          fmt::format("its parent is not found{} ({}): {}", tried, option, error.message);
    }
    return in_file(missing_named_file(std::move(error)), child);
  }

  using Opener = Result<std::unique_ptr<Reader>> (*)(const ImageToOpen&);
  Result<Opener> opener_of(const Format& format, const std::string& path) const {
    if (options_.reader == ReaderChoice::kOwn) return format.open;
    if (format.open_by_library == nullptr) {
      return in_file(
          fail(ErrorKind::kUnsupported, "--reader libyal: no library reads {} images", format.name),
          path);
    }
    return format.open_by_library;
  }

  Result<void> add_layer(OpenedFile file, const Format& format, const ImageOptions& image_options) {
    const auto identity = file.source->identity();
    if (identity && std::find(seen_.begin(), seen_.end(), *identity) != seen_.end()) {
      return in_file(fail(ErrorKind::kMalformed, "stands twice in its own chain of parents"),
                     file.path);
    }
    if (identity) seen_.push_back(*identity);
    if (image_options.snapshot && !format.snapshots) {
      return in_file(
          fail(ErrorKind::kUnsupported, "{} images have no internal snapshots (-l)", format.name),
          file.path);
    }

    if (visit_) TRY(visit_({.file = file, .format = format, .options = image_options}));
    const FilesOfImages files(files_);
    std::vector<std::string> warnings;
    const ImageToOpen image{.source = std::move(file.source),
                            .path = file.path,
                            .files = files,
                            .caches = caches_,
                            .options = image_options,
                            .warnings = warnings};
    auto reader = TRY(opener_of(format, file.path))(image);
    if (!reader) return in_file(std::move(reader).error(), file.path);
    for (const std::string& warning : warnings) {
      warnings_.push_back(printable(file.path + ": " + warning));
    }
    layers_.push_back(
        Layer{.reader = *std::move(reader), .path = file.path, .format = format.name});
    return {};
  }

  const OpenOptions& options_;
  const NamedFiles& files_;
  Caches& caches_;
  const ChainVisitor& visit_;
  std::vector<Layer> layers_;
  std::vector<FileIdentity> seen_;
  std::vector<std::string> warnings_;
};

Result<OpenedDisk> open_contained(ContainedImage image, const OpenOptions& options,
                                  const NamedFiles& files, Caches& caches,
                                  const ChainVisitor& visit) {
  const NamedFiles& lookup = image.files ? *image.files : files;
  OpenedDisk opened = TRY(ChainOpener(options, lookup, caches, visit).open(std::move(image.file)));
  const Disk& disk = *opened.disk;
  if (disk.size() != disk.unpadded_size()) {
    opened.warnings.push_back(fmt::format(
        "{}: size {} is no multiple of {}: the last sector is filled up with zeros",
        printable(disk.layers().front().path), disk.unpadded_size(), Disk::kSectorBytes));
  }
  return opened;
}

}  // namespace

Result<const Format*> top_format(const Source& source, const std::string& path,
                                 const std::string& stated, std::vector<std::string>& warnings) {
  if (!stated.empty()) return named_format(stated, path);
  const Guess guess = TRY(guess_format(source));
  if (guess.format != nullptr) return guess.format;
  if (!guess.damaged.empty()) {
    return in_file(fail(ErrorKind::kMalformed,
                        "looks like a damaged image of format {}; -f raw serves the file as it is",
                        guess.damaged),
                   path);
  }
  warnings.push_back(
      fmt::format("{}: Image format was not specified and probing guessed raw; specify the format "
                  "with -f raw",
                  printable(path)));
  return find_format(kRawFormat);
}

Result<ContainedImage> open_top_file(const std::string& path, const OpenOptions& options,
                                     Caches& caches) {
  // In a URL, '#' stands in no name of a file.
  const bool is_url = is_remote_name(path) && !is_s3_name(path);
  if (const auto split = split_member_path(path); split && is_url) {
    return look_into(TRY(open_named_by_operator(split->file, options.sharing, caches)),
                     options.format, split->member, caches);
  }
  auto top = open_named_by_operator(path, options.sharing, caches);
  if (top) return look_into(*std::move(top), options.format, "", caches);
  if (const auto split = split_member_path(path);
      split && top.error().kind == ErrorKind::kNotFound) {
    if (auto archive = open_named_by_operator(split->file, options.sharing, caches)) {
      return look_into(*std::move(archive), options.format, split->member, caches);
    }
  }
  return Failure(std::move(top).error());
}

Result<OpenedDisk> open_disk(OpenedFile top, const OpenOptions& options, const NamedFiles& files,
                             Caches& caches, const ChainVisitor& visit) {
  return open_contained(TRY(look_into(std::move(top), options.format, "", caches)), options, files,
                        caches, visit);
}

Result<OpenedDisk> open_disk(const std::string& path, const OpenOptions& options,
                             const NamedFiles& files, Caches& caches, const ChainVisitor& visit) {
  return open_contained(TRY(open_top_file(path, options, caches)), options, files, caches, visit);
}

}  // namespace underlay
