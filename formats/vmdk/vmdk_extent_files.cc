#include "formats/vmdk/vmdk_extent_files.h"

#include <cerrno>

#include "formats/vmdk/vmdk_layout.h"

namespace underlay {
namespace {

bool is_same_file(const Source& a, const Source& b) {
  const auto identity = a.identity();
  return &a == &b || (identity.has_value() && identity == b.identity());
}

bool is_missing(const Error& error) {
  return error.kind == ErrorKind::kNotFound || error.sys_errno == ENOENT;
}

}  // namespace

// By its name in UTF-8; when there is no such file, by the bytes of the name in the descriptor.
Result<OpenedFile> VmdkExtentFiles::open_named(const VmdkFileName& file) const {
  auto opened = files_.open(path_, file.name);
  if (opened || file.as_written.empty() || !is_missing(opened.error())) return opened;
  auto second = files_.open(path_, file.as_written);
  return second || !is_missing(second.error()) ? std::move(second) : std::move(opened);
}

Result<std::shared_ptr<const Source>> VmdkExtentFiles::open(const VmdkExtentLine& line) {
  OpenedFile file = TRY(open_named(line.file));
  if (is_same_file(*file.source, image_)) {
    return fail(ErrorKind::kMalformed, "the image names itself, \"{}\", as its extent",
                printable(line.file.name));
  }
  TRY(check_overlap(file.source, line));
  return std::move(file.source);
}

// Two extents never share bytes: what a guest writes to one would show in the other.
Result<void> VmdkExtentFiles::check_overlap(const std::shared_ptr<const Source>& source,
                                            const VmdkExtentLine& line) {
  FileUse use{.source = nullptr, .identity = source->identity(), .range = {}, .line = line.line};
  if (!use.identity) use.source = source;
  use.range.length = ~uint64_t{0};  // sparse: the whole file
  if (line.kind == VmdkExtentLine::Kind::kFlat) {
    use.range = {.offset = line.offset * kVmdkSectorBytes,
                 .length = line.sectors * kVmdkSectorBytes};
  }
  for (const FileUse& other : uses_) {
    const bool same = use.identity ? other.identity == use.identity : other.source == use.source;
    if (!same || !use.range.overlaps(other.range)) continue;
    return fail(ErrorKind::kMalformed,
                "the extent in \"{}\" overlaps the one of descriptor line {}: the descriptor is "
                "damaged",
                printable(line.file.name), other.line);
  }
  uses_.push_back(std::move(use));
  return {};
}

Result<void> check_vmdk_flat_extent(const Source& source, const VmdkExtentLine& line) {
  if (range_within(line.offset * kVmdkSectorBytes, line.sectors * kVmdkSectorBytes,
                   source.size())) {
    return {};
  }
  return in_file(fail(ErrorKind::kTruncated,
                      "the extent's {} sectors from sector {} lie beyond the end of the file, "
                      "which has {} bytes: it is truncated",
                      line.sectors, line.offset, source.size()),
                 source.name());
}

}  // namespace underlay
