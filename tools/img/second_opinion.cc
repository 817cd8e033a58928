#include "tools/img/second_opinion.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/inspection/inspector.h"
#include "formats/inspection/second_opinion.h"
#include "tools/img/compare_status.h"
#include "tools/img/content_comparison.h"
#include "tools/img/say.h"

namespace underlay::img {
namespace {

using Kind = ComparisonEnd::Kind;

// A library does one thing at a time; meanwhile our own reader reads for the next piece.
constexpr unsigned kThreads = 2;

// Of what is shown where the bytes differ.
constexpr uint64_t kShownBytes = 16;

// The sides of the comparison.
constexpr size_t kOwn = 0;
constexpr size_t kLibrary = 1;

struct Opinion {
  std::string_view library;         // "" when there is none
  std::string none;                 // why it has nothing to say, "" when it has
  std::array<uint64_t, 2> sizes{};  // bytes, as our reader and the library tell
  ComparisonEnd end;
  // Of a difference: the bytes, in hex, and the image that has them as our reader sees it.
  std::array<std::string, 2> bytes;
  std::string layer;

  bool sizes_differ() const { return sizes[kOwn] != sizes[kLibrary]; }
  bool differs() const { return sizes_differ() || end.kind == Kind::kDiffers; }
  int status() const {
    if (!none.empty()) return kNoOpinion;
    if (differs()) return kDifferent;
    if (end.kind == Kind::kEqual) return kIdentical;
    return end.kind == Kind::kCannotMap ? kMapFailed : kReadFailed;
  }
};

std::string hex(ByteSpan bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

Result<void> look_at_difference(const Disk& own, const Disk& other, Opinion& opinion) {
  const uint64_t offset = opinion.end.offset;
  std::vector<std::byte> shown(std::min(kShownBytes, own.unpadded_size() - offset));
  TRY(own.read(offset, shown));
  opinion.bytes[kOwn] = hex(shown);
  TRY(other.read(offset, shown));
  opinion.bytes[kLibrary] = hex(shown);
  const Extent extent = TRY(own.map(offset, 1, MapFor::kRead));
  if (extent.depth > 0) opinion.layer = own.layers()[extent.depth - 1u].path;
  return {};
}

// The library is not asked about what our own reader cannot read: then it is that one's failure.
// Anything else is why the library has nothing to say.
void judge_failure(const Disk& own, Opinion& opinion) {
  ComparisonEnd& end = opinion.end;
  if (end.side == kOwn) return;
  const uint64_t from = end.offset - end.offset % ContentComparison::kPiece;
  std::vector<std::byte> around(std::min(2 * ContentComparison::kPiece, own.size() - from));
  auto read = own.read(from, around);
  if (read) {
    opinion.none = end.error.to_string();
    return;
  }
  end.kind = Kind::kCannotRead;
  end.side = kOwn;
  end.error = std::move(read).error();
}

// `progress` may be null.
Result<Opinion> opinion_of(const std::shared_ptr<const Disk>& own, Progress* progress) {
  Opinion opinion;
  const Layer& top = own->layers().front();
  const Format* const format = find_format(top.format);
  const auto ask = format == nullptr ? nullptr : inspector_of(format->name).second_opinion;
  if (ask == nullptr) {
    opinion.none = fmt::format("no library reads {} images", top.format);
    return opinion;
  }
  auto second = ask(own);
  if (!second) {
    opinion.none = second.error().to_string();
    return opinion;
  }
  opinion.library = second->library;
  opinion.sizes = {own->unpadded_size(), second->reader->size()};
  if (opinion.sizes_differ()) return opinion;
  std::vector<Layer> layers;
  layers.push_back(Layer{.reader = std::move(second->reader), .path = ""});
  const Disk other(std::move(layers), own->caches());
  opinion.end = ContentComparison(*own, other, own->size(), progress).run(kThreads);
  const ComparisonEnd& end = opinion.end;
  if (end.kind == Kind::kDiffers) TRY(look_at_difference(*own, other, opinion));
  if (end.kind == Kind::kCannotMap || end.kind == Kind::kCannotRead) judge_failure(*own, opinion);
  return opinion;
}

void print_human(const std::string& path, const Opinion& opinion) {
  const std::string name = printable(path);
  const std::string_view library = opinion.library;
  if (opinion.sizes_differ()) {
    fmt::print("{}: size mismatch! {} bytes, {} reads {}\n", name, opinion.sizes[kOwn], library,
               opinion.sizes[kLibrary]);
  } else if (opinion.differs()) {
    fmt::print("{}: content mismatch at offset {} (in {})! {}, {} reads {}\n", name,
               opinion.end.offset,
               opinion.layer.empty() ? "no image of the chain" : printable(opinion.layer),
               opinion.bytes[kOwn], library, opinion.bytes[kLibrary]);
  } else {
    fmt::print("{}: {} reads the same.\n", name, library);
  }
}

void print_as_json(const std::string& path, const Opinion& opinion) {
  nlohmann::ordered_json document{{"version", kJsonVersion},
                                  {"filename", path},
                                  {"library", opinion.library},
                                  {"identical", !opinion.differs()},
                                  {"bytes-compared", opinion.end.compared}};
  if (opinion.sizes_differ()) {
    document["mismatch"] = "size";
    document["sizes"] = opinion.sizes;
  } else if (opinion.differs()) {
    document["mismatch"] = "content";
    document["offset"] = opinion.end.offset;
    document["bytes"] = opinion.bytes;
    if (!opinion.layer.empty()) document["layer"] = opinion.layer;
  }
  print_json(document);
}

Result<void> check_companions(const Given& given) {
  for (const std::string_view option : {"b-format", "strict", "reader"}) {
    if (!given.has(option)) continue;
    return fail(ErrorKind::kUsage, "--{} does not go with --second-opinion", option);
  }
  return {};
}

}  // namespace

Result<int> ask_second_opinion(const Given& given, const ImageArgument& image) {
  TRY(check_companions(given));
  const OutputFormat output = TRY(output_format(given));
  const bool quiet = given.has("quiet");
  const bool wants_progress = given.has("progress") && !quiet;
  Caches caches;
  const auto disk = TRY(open_image(image, caches, quiet));
  Progress progress(wants_progress);
  progress.begin(disk->size());
  const Opinion opinion = TRY(opinion_of(disk, quiet ? nullptr : &progress));
  progress.end();
  const bool interrupted = opinion.end.kind == Kind::kInterrupted;
  if (interrupted || wants_progress) {
    say_error(fmt::format("{}{} of {} bytes compared", interrupted ? "interrupted: " : "",
                          opinion.end.compared, disk->size()));
  }
  if (interrupted) return fail_errno(EINTR, "interrupted");
  const int status = opinion.status();
  if (status == kNoOpinion) {
    say_error(fmt::format("{}: no second opinion: {}", image.path, opinion.none));
  } else if (status > kNoOpinion) {
    say_error(opinion.end.error.to_string());
  } else if (auto unchanged = disk->check_unchanged(); !unchanged) {
    say_error(unchanged.error().to_string());
    return kReadFailed;
  } else if (!quiet) {
    output == OutputFormat::kJson ? print_as_json(image.path, opinion)
                                  : print_human(image.path, opinion);
  }
  return status;
}

}  // namespace underlay::img
