#include "formats/vmdk/vmdk_descriptor.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <span>

#include "formats/text_encoding.h"
#include "formats/vmdk/vmdk_layout.h"
#include "io/bytes.h"

namespace underlay {
namespace {

constexpr std::string_view kBlanks = " \t\r";
constexpr std::string_view kUtf8Bom = "\xef\xbb\xbf";

// Only ASCII letters have a case here, whatever the locale.
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool equal_nocase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return lower(x) == lower(y); });
}

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// All of `text`, digits only.
template <class T>
std::optional<T> parse_number(std::string_view text, int base) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value, base);
  if (text.empty() || error != std::errc{} || stop != end) return std::nullopt;
  return value;
}

// Cuts the next line off `text`.
struct Line {
  std::string_view text;    // without blanks around it
  bool terminated = false;  // by a line feed or NUL
};
Line take_line(std::string_view& text) {
  const size_t end = text.find('\n');
  Line line{.text = trim(text.substr(0, end)), .terminated = end != std::string_view::npos};
  text.remove_prefix(line.terminated ? end + 1 : text.size());
  return line;
}

// Cuts the next word off `text`, up to a blank.
std::string_view take_word(std::string_view& text) {
  text = trim(text);
  const std::string_view word = text.substr(0, text.find_first_of(kBlanks));
  text = trim(text.substr(word.size()));
  return word;
}

std::optional<VmdkExtentLine::Access> access_named(std::string_view word) {
  using Access = VmdkExtentLine::Access;
  if (word == "RW") return Access::kReadWrite;
  if (word == "RDONLY") return Access::kReadOnly;
  if (word == "NOACCESS") return Access::kNoAccess;
  return std::nullopt;
}

constexpr std::string_view kRawDeviceMapping =
    "is a device mapped into ESX (raw-device mapping): its data is in no file; copy the disk on "
    "its host with vmkfstools -i DISK.vmdk -d thin COPY.vmdk, and serve the copy";

std::optional<VmdkExtentLine::Kind> kind_named(std::string_view word) {
  using Kind = VmdkExtentLine::Kind;
  if (word == "FLAT" || word == "VMFS") return Kind::kFlat;
  if (word == "SPARSE" || word == "VMFSSPARSE" || word == "SESPARSE") return Kind::kSparse;
  if (word == "ZERO") return Kind::kZero;
  return std::nullopt;
}

bool is_raw_device_extent(std::string_view type) { return type == "VMFSRDM" || type == "VMFSRAW"; }

bool is_any_of(std::string_view type, std::span<const std::string_view> names) {
  return std::any_of(names.begin(), names.end(),
                     [&](std::string_view known) { return equal_nocase(type, known); });
}

bool is_served_create_type(std::string_view type) {
  constexpr std::array<std::string_view, 16> kServed = {
      "monolithicSparse",   "monolithicFlat",   "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
      "2GbMaxExtentSparse", "2GbMaxExtentFlat", "streamOptimized",      "vmfs",
      "vmfsThin",           "vmfsPreallocated", "vmfsEagerZeroedThick", "vmfsSparse",
      "seSparse",           "custom",           "fullDevice",           "partitionedDevice"};
  return is_any_of(type, kServed);
}

bool is_raw_device_create_type(std::string_view type) {
  constexpr std::array<std::string_view, 4> kMapped = {"vmfsRaw", "vmfsRDM", "vmfsRawDeviceMap",
                                                       "vmfsPassthroughRawDeviceMap"};
  return is_any_of(type, kMapped);
}

// value, or "value" with nothing behind it.
Result<std::string_view> unquoted(std::string_view value) {
  if (!value.starts_with('"')) return value;
  const size_t end = value.find('"', 1);
  if (end == std::string_view::npos) return fail(ErrorKind::kMalformed, "a quote is not closed");
  if (end + 1 != value.size()) {
    return fail(ErrorKind::kMalformed, "\"{}\" stands behind the closing quote",
                printable(value.substr(end + 1), 80));
  }
  return value.substr(1, end - 1);
}

// qemu writes a new CID in place, in as few of its 8 digits as it has, and only a NUL behind the
// text: of a longer text that stood there before, the last bytes remain.
bool is_old_end(std::string_view text, size_t end) {
  constexpr size_t kMostDigitsLost = 7;
  const size_t first = text.find_first_not_of('\0', end);
  const size_t last = text.find_last_not_of('\0');
  if (last - end >= kMostDigitsLost) return false;
  return text.substr(0, end).ends_with(text.substr(first, last + 1 - first));
}

class DescriptorParser {
 public:
  // Without `problems`, the first one ends parse(). It outlives this.
  explicit DescriptorParser(std::vector<Defect>* problems) : problems_(problems) {}

  // Fails with the first problem.
  Result<void> parse(std::string_view text) {
    const size_t end = std::min(text.find('\0'), text.size());
    const bool padded = end < text.size();
    TRY(note(check_end(text, end)));
    text = text.substr(0, end);
    if (text.starts_with(kUtf8Bom)) text.remove_prefix(kUtf8Bom.size());
    while (!text.empty()) {
      Line line = take_line(text);
      line.terminated = line.terminated || padded;
      ++line_;
      auto done = parse_line(line);
      if (!done) {
        done = with_context(std::move(done).error(), fmt::format("descriptor line {}: ", line_));
      }
      TRY(note(std::move(done)));
    }
    return check_whole();
  }

  VmdkDescriptor take() { return std::move(result_); }

 private:
  // A failure, or nothing when problems are collected.
  Result<void> note(Result<void> done) {
    if (done || problems_ == nullptr) return done;
    if (problems_->size() < kVmdkMaxProblems) {
      problems_->push_back({.code = code_, .error = std::move(done).error()});
    }
    return {};
  }

  template <class... Args>
  Failure refuse(std::string_view code, ErrorKind kind, fmt::format_string<Args...> format,
                 Args&&... args) {
    code_ = code;
    return fail(kind, format, std::forward<Args>(args)...);
  }

  Result<void> check_end(std::string_view text, size_t end) {
    const size_t more = text.find_first_not_of('\0', end);
    if (more == std::string_view::npos || is_old_end(text, end)) return {};
    return refuse("descriptor-damaged", ErrorKind::kMalformed,
                  "descriptor goes on at byte {} behind NUL bytes at {}: it is damaged", more, end);
  }

  Result<void> parse_line(Line line) {
    if (line.text.empty() || line.text.starts_with('#')) return {};
    std::string_view rest = line.text;
    if (const auto access = access_named(take_word(rest))) {
      return parse_extent(*access, rest, line.terminated);
    }
    const size_t equals = line.text.find('=');
    const std::string_view key = trim(line.text.substr(0, equals));
    if (equals == std::string_view::npos || key.empty() ||
        key.find_first_of(" \t\"") != std::string_view::npos) {
      return refuse("descriptor-line", ErrorKind::kMalformed,
                    "\"{}\" is neither key=value nor an extent (RW, RDONLY or NOACCESS)",
                    printable(line.text, 80));
    }
    return parse_key(key, trim(line.text.substr(equals + 1)));
  }

  Result<void> parse_key(std::string_view key, std::string_view value) {
    const auto is = [&](std::string_view name) { return equal_nocase(key, name); };
    if (is("version")) return parse_version(value);
    if (is("CID")) return parse_cid(key, value, result_.cid);
    if (is("parentCID")) return parse_cid(key, value, parent_cid_);
    if (is("createType")) return parse_text(key, value, create_type_);
    if (is("parentFileNameHint")) return parse_text(key, value, hint_);
    if (is("encoding")) return parse_text(key, value, encoding_);
    if (is("encryptionKeys") || is("iofilters")) {
      return refuse(
          "encrypted", ErrorKind::kUnsupported,
          "{} says that the data is encrypted or filtered: such disks are not served; decrypt it "
          "where it was encrypted",
          printable(key));
    }
    result_.others.push_back({.line = line_,
                              .key = std::string(key),
                              .value = std::string(unquoted(value).value_or(value))});
    return {};
  }

  Result<void> parse_version(std::string_view value) {
    const auto version = parse_number<uint32_t>(TRY(unquote(value)), 10);
    if (version) result_.version = version;
    if (version && *version >= 1 && *version <= 3) return {};
    return refuse("descriptor-version", ErrorKind::kUnsupported, "version is {}: 1 to 3 are served",
                  printable(value, 80));
  }

  Result<void> parse_cid(std::string_view key, std::string_view value,
                         std::optional<uint32_t>& field) {
    if (field) return given_twice(key);
    field = parse_number<uint32_t>(TRY(unquote(value)), 16);
    if (field) return {};
    return refuse("cid", ErrorKind::kMalformed, "{} is {}: it must have 1 to 8 hexadecimal digits",
                  key, printable(value, 80));
  }

  Result<void> parse_text(std::string_view key, std::string_view value,
                          std::optional<std::string>& field) {
    if (field) return given_twice(key);
    field = std::string(TRY(unquote(value)));
    return {};
  }

  Failure given_twice(std::string_view key) {
    return refuse("given-twice", ErrorKind::kMalformed,
                  "{} is given twice: which one holds is ambiguous", key);
  }

  Result<std::string_view> unquote(std::string_view value) {
    code_ = "quotes";
    return unquoted(value);
  }

  // SECTORS TYPE ["NAME" [OFFSET]]
  Result<void> parse_extent(VmdkExtentLine::Access access, std::string_view rest, bool terminated) {
    if (result_.extents.size() == kVmdkMaxExtents) {
      return refuse("extent-count", ErrorKind::kLimit, "there are more than {} extents",
                    kVmdkMaxExtents);
    }
    VmdkExtentLine extent;
    extent.line = line_;
    extent.access = access;
    auto done = parse_extent_words(rest, terminated, extent);
    extent.is_understood = done.has_value();
    if (done || problems_ != nullptr) result_.extents.push_back(std::move(extent));
    return done;
  }

  Result<void> parse_extent_words(std::string_view rest, bool terminated, VmdkExtentLine& extent) {
    const std::string_view size = take_word(rest);
    const std::string_view type = take_word(rest);
    extent.type = type;
    std::string_view behind_name = rest;
    const auto name = take_name(behind_name);
    if (name) extent.file.name = *name;

    extent.sectors = TRY(parse_sectors("size", size));
    if (extent.sectors == 0) {
      return refuse("extent-size", ErrorKind::kMalformed, "extent's size is 0 sectors");
    }
    if (extent.sectors > kVmdkMaxSectors - total_) {
      return refuse("disk-size", ErrorKind::kLimit,
                    "extents up to here have {} sectors, above the limit of {}",
                    total_ + extent.sectors, kVmdkMaxSectors);
    }
    total_ += extent.sectors;
    extent.kind = TRY(kind_of(type));
    if (extent.kind != VmdkExtentLine::Kind::kZero) {
      if (!name) {
        code_ = "extent-name";
        return Failure(name.error());
      }
      rest = behind_name;
    }
    if (extent.kind == VmdkExtentLine::Kind::kFlat && (type == "FLAT" || !rest.empty())) {
      TRY(parse_offset(rest, terminated, extent));
    }
    if (rest.empty()) return {};
    return refuse("extent-line", ErrorKind::kMalformed, "\"{}\" stands behind the extent",
                  printable(rest, 80));
  }

  Result<VmdkExtentLine::Kind> kind_of(std::string_view type) {
    if (const auto kind = kind_named(type)) return *kind;
    if (is_raw_device_extent(type)) {
      return refuse("raw-device", ErrorKind::kUnsupported, "an extent of type {} {}", type,
                    kRawDeviceMapping);
    }
    return refuse("extent-type", ErrorKind::kUnsupported, "extent type \"{}\" is unknown",
                  printable(type, 80));
  }

  Result<void> parse_offset(std::string_view& rest, bool terminated, VmdkExtentLine& extent) {
    if (!rest.empty() && !terminated) {
      return refuse("descriptor-cut", ErrorKind::kMalformed,
                    "the descriptor ends within an extent's offset: it may be cut off; if not, end "
                    "it with a newline");
    }
    extent.offset = TRY(parse_sectors("offset", take_word(rest)));
    if (extent.offset <= kVmdkMaxSectors - extent.sectors) return {};
    return refuse("extent-offset", ErrorKind::kLimit,
                  "extent's offset is {} sectors and its size {}: their sum is above the limit of "
                  "{}",
                  extent.offset, extent.sectors, kVmdkMaxSectors);
  }

  Result<uint64_t> parse_sectors(std::string_view field, std::string_view word) {
    const auto sectors = parse_number<uint64_t>(word, 10);
    if (sectors && *sectors <= kVmdkMaxSectors) return *sectors;
    return refuse(field == "size" ? "extent-size" : "extent-offset", ErrorKind::kMalformed,
                  "extent's {} is \"{}\": it must be a number of sectors, 0 to {}", field,
                  printable(word, 80), kVmdkMaxSectors);
  }

  // Cuts a quoted name off `rest`.
  static Result<std::string> take_name(std::string_view& rest) {
    const size_t end = rest.starts_with('"') ? rest.find('"', 1) : std::string_view::npos;
    if (end == std::string_view::npos || end == 1) {
      return fail(ErrorKind::kMalformed, "extent's file is {}: it must be a name in quotes",
                  rest.empty() ? "missing" : printable(rest, 80));
    }
    std::string name(rest.substr(1, end - 1));
    rest.remove_prefix(end + 1);
    if (!rest.empty() && kBlanks.find(rest.front()) == std::string_view::npos) {
      return fail(ErrorKind::kMalformed, "\"{}\" stands behind the closing quote",
                  printable(rest, 80));
    }
    rest = trim(rest);
    return name;
  }

  Result<void> check_whole() {
    TRY(note(check_create_type()));
    TRY(note(check_extents()));
    TRY(note(check_parent()));
    result_.encoding = encoding_.value_or("");
    return decode_names();
  }

  Result<void> check_create_type() {
    if (!create_type_) {
      return refuse("create-type", ErrorKind::kMalformed,
                    "descriptor has no createType: no vmdk image, or damaged");
    }
    result_.create_type = *create_type_;
    if (is_served_create_type(*create_type_)) return {};
    if (is_raw_device_create_type(*create_type_)) {
      return refuse("raw-device", ErrorKind::kUnsupported, "createType \"{}\" {}", *create_type_,
                    kRawDeviceMapping);
    }
    return refuse("create-type", ErrorKind::kUnsupported, "createType \"{}\" is not served",
                  printable(*create_type_, 80));
  }

  Result<void> check_extents() {
    const auto usable = [](const VmdkExtentLine& extent) {
      return extent.access != VmdkExtentLine::Access::kNoAccess;
    };
    if (std::any_of(result_.extents.begin(), result_.extents.end(), usable)) return {};
    return refuse("no-extents", ErrorKind::kMalformed,
                  "descriptor has {} extents, none of which may be read", result_.extents.size());
  }

  Result<void> check_parent() {
    const bool linked = parent_cid_ && *parent_cid_ != kVmdkNoParent;
    const bool named = hint_ && !hint_->empty();
    if (linked) result_.parent_cid = parent_cid_;
    if (named) result_.parent_file_name_hint.name = *hint_;
    if (linked == named) return {};
    return refuse("parent-unclear", ErrorKind::kMalformed,
                  "parentCID {} and parentFileNameHint \"{}\" contradict each other: whether the "
                  "image has a parent is not clear",
                  parent_cid_ ? fmt::format("{:08x}", *parent_cid_) : "(none)",
                  printable(hint_.value_or(""), 80));
  }

  // Names here are in UTF-8. What was copied with its descriptor from another host may still have
  // the name's old bytes, or be from a program that does not heed the encoding.
  Result<void> decode_names() {
    if (!encoding_ || equal_nocase(*encoding_, "UTF-8")) return {};
    TRY(note(decode(result_.parent_file_name_hint)));
    for (VmdkExtentLine& extent : result_.extents) TRY(note(decode(extent.file)));
    return {};
  }

  Result<void> decode(VmdkFileName& file) {
    if (is_ascii(file.name)) return {};
    auto decoded = to_utf8(file.name, *encoding_);
    if (decoded && *decoded != file.name) {
      file.as_written = std::exchange(file.name, *std::move(decoded));
    } else if (!decoded && decoded.error().kind != ErrorKind::kMalformed) {
      return refuse("encoding", decoded.error().kind,
                    "file name \"{}\": {}: give the file an ASCII name, here as well",
                    printable(file.name, 200), decoded.error().message);
    }
    return {};
  }

  std::vector<Defect>* problems_;
  std::string_view code_;  // of the failure that is on its way
  VmdkDescriptor result_;
  size_t line_ = 0;
  uint64_t total_ = 0;  // sectors of all extents
  std::optional<uint32_t> parent_cid_;
  std::optional<std::string> create_type_;
  std::optional<std::string> hint_;
  std::optional<std::string> encoding_;
};

bool is_descriptor_line(std::string_view line) {
  const size_t equals = line.find('=');
  if (equals != std::string_view::npos &&
      equal_nocase(trim(line.substr(0, equals)), "createType")) {
    return true;
  }
  if (!access_named(take_word(line))) return false;
  return parse_number<uint64_t>(take_word(line), 10).has_value() && !line.empty();
}

}  // namespace

Result<VmdkDescriptor> parse_vmdk_descriptor(std::string_view text) {
  DescriptorParser parser(/*problems=*/nullptr);
  TRY(parser.parse(text));
  return parser.take();
}

VmdkDescriptor describe_vmdk_descriptor(std::string_view text, std::vector<Defect>& problems) {
  DescriptorParser parser(&problems);
  (void)parser.parse(text);  // what fails is in `problems`
  return parser.take();
}

VmdkDescriptorSigns vmdk_descriptor_signs(std::string_view head) {
  head = head.substr(0, head.find('\0'));
  if (head.starts_with(kUtf8Bom)) head.remove_prefix(kUtf8Bom.size());
  bool at_start = true;  // in the blank lines and comments that a file begins with
  while (!head.empty()) {
    const std::string_view line = take_line(head).text;
    const bool comment = line.starts_with('#');
    if (at_start && comment && equal_nocase(trim(line.substr(1)), "Disk DescriptorFile")) {
      return VmdkDescriptorSigns::kHeader;
    }
    at_start = at_start && (comment || line.empty());
    if (!comment && is_descriptor_line(line)) return VmdkDescriptorSigns::kLines;
  }
  return VmdkDescriptorSigns::kNone;
}

}  // namespace underlay
