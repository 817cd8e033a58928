#include "formats/container/tar.h"

#include "formats/container/tar_layout.h"

namespace underlay::tar {
namespace {

// Of the data of a long name or of pax records; more than any path needs.
constexpr uint64_t kMaxExtendedBytes = 64 << 10;

std::string without_dot(std::string name) {
  while (name.starts_with("./")) name.erase(0, 2);
  return name;
}

bool has_no_data(char typeflag) { return typeflag >= '1' && typeflag <= '6'; }

class Lister {
 public:
  explicit Lister(const Source& archive) : archive_(archive) {}

  Result<std::vector<Member>> list() {
    for (size_t headers = 0; headers <= kMaxMembers; ++headers) {
      if (!range_within(at_, kRecordBytes, archive_.size())) {
        return fail(ErrorKind::kTruncated,
                    "the archive ends at byte {} without its end mark: it is truncated",
                    archive_.size());
      }
      std::array<std::byte, kRecordBytes> record;
      TRY(archive_.read_at(at_, record));
      auto header = parse_header(record);
      if (!header) return in_file(std::move(header).error(), archive_.name(), at_);
      if (!*header) return std::move(members_);
      auto taken = take(**header);
      if (!taken) return in_file(std::move(taken).error(), archive_.name(), at_);
    }
    return fail(ErrorKind::kLimit, "the archive has more than {} headers", kMaxMembers);
  }

 private:
  // Takes the member at at_, and goes on to the next.
  Result<void> take(const Header& header) {
    const bool is_extended = std::string_view("xXgLK").find(header.typeflag) != std::string::npos;
    const uint64_t size = is_extended ? header.size : extended_.size.value_or(header.size);
    const uint64_t data = at_ + kRecordBytes;
    const auto stored = round_up(size, kRecordBytes);
    if (!stored || !range_within(data, size, archive_.size())) {
      return fail(ErrorKind::kTruncated,
                  "the member \"{}\" of {} bytes reaches beyond the end of the archive, which has "
                  "{} bytes: it is truncated or damaged",
                  printable(header.name, 200), size, archive_.size());
    }
    if (header.typeflag == 'S' || header.typeflag == 'M') {
      return fail(ErrorKind::kUnsupported,
                  "the member \"{}\" is of type {}, sparse or cut into volumes, and how its bytes "
                  "lie in the archive is not read: unpack it with tar -xSf",
                  printable(header.name, 200), header.typeflag);
    }
    if (has_no_data(header.typeflag) && size != 0) {
      return fail(ErrorKind::kUnsupported,
                  "the member \"{}\" is of type {}, which has no data, but states {} bytes: what "
                  "follows is not known",
                  printable(header.name, 200), header.typeflag, size);
    }
    if (is_extended) {
      TRY(extend(header, data));
    } else {
      add(header, data, size);
    }
    at_ = data + *stored;
    return {};
  }

  Result<void> extend(const Header& header, uint64_t data) {
    if (header.size > kMaxExtendedBytes) {
      return fail(ErrorKind::kLimit, "an extended tar header of {} bytes is longer than {}",
                  header.size, kMaxExtendedBytes);
    }
    std::vector<std::byte> bytes(static_cast<size_t>(header.size));
    TRY(archive_.read_at(data, bytes));
    const std::string_view text = as_text(bytes);
    switch (header.typeflag) {
      case 'L':
        extended_.path = text.substr(0, text.find('\0'));
        return {};
      case 'x':
      case 'X':
        return parse_pax_records(bytes, extended_);
      case 'g':
        return check_global(bytes);
      default:  // a link's target
        return {};
    }
  }

  // What holds for all members cannot be one's name or size.
  static Result<void> check_global(ByteSpan bytes) {
    Extended global;
    TRY(parse_pax_records(bytes, global));
    if (!global.path && !global.size && !global.sparse) return {};
    return fail(ErrorKind::kUnsupported, "a pax header gives all members one name or size");
  }

  void add(const Header& header, uint64_t data, uint64_t size) {
    if (header.is_file()) {
      members_.push_back({.name = without_dot(extended_.path.value_or(header.name)),
                          .offset = data,
                          .size = size,
                          .sparse = extended_.sparse});
    }
    extended_ = {};
  }

  const Source& archive_;
  uint64_t at_ = 0;    // of the next header
  Extended extended_;  // of the next member
  std::vector<Member> members_;
};

}  // namespace

Result<std::vector<Member>> list_members(const Source& archive) {
  auto members = Lister(archive).list();
  if (!members) return in_file(std::move(members).error(), archive.name());
  return members;
}

}  // namespace underlay::tar
