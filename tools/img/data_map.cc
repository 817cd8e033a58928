#include "tools/img/data_map.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

namespace underlay::img {
namespace {

constexpr uint64_t kMaxFile = 256 << 20;  // bytes

// Reads of holes are answered here: what lies there may be anything.
class MappedSource final : public Source {
 public:
  MappedSource(std::shared_ptr<const Source> source, std::vector<DataRange> ranges, FileHoles holes)
      : source_(std::move(source)), ranges_(std::move(ranges)), holes_(holes) {}

  const std::string& name() const override { return source_->name(); }
  uint64_t size() const override { return source_->size(); }
  const Source& file() const override { return source_->file(); }
  std::optional<FileIdentity> identity() const override { return source_->identity(); }
  Result<void> check_unchanged() const override { return source_->check_unchanged(); }
  bool was_replaced() const override { return source_->was_replaced(); }

  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override {
    if (!range_within(offset, out.size(), size())) return source_->read_at(offset, out);
    while (!out.empty()) {
      const SourceRun run = range_at(offset, out.size());
      const auto part = out.first(static_cast<size_t>(run.length));
      if (run.hole) {
        std::ranges::fill(part, std::byte{0});
      } else {
        TRY(source_->read_at(offset, part));
      }
      offset += run.length;
      out = out.subspan(part.size());
    }
    return {};
  }

  SourceRun run_at(uint64_t offset, uint64_t length) const override {
    const SourceRun run = range_at(offset, length);
    if (run.hole || holes_ == FileHoles::kData) return run;
    return source_->run_at(offset, run.length);
  }

 private:
  SourceRun range_at(uint64_t offset, uint64_t length) const {
    const auto next = std::ranges::upper_bound(ranges_, offset, {}, &DataRange::end);
    if (next == ranges_.end()) return {.hole = true, .length = length};
    if (next->begin > offset) {
      return {.hole = true, .length = std::min(length, next->begin - offset)};
    }
    return {.hole = false, .length = std::min(length, next->end - offset)};
  }

  std::shared_ptr<const Source> source_;
  std::vector<DataRange> ranges_;
  FileHoles holes_;
};

Failure malformed(const std::string& path, const char* what) {
  return in_file(fail(ErrorKind::kMalformed,
                      "{}: it must be what 'underlay-img map --output=json' prints", what),
                 path);
}

}  // namespace

Result<std::vector<DataRange>> read_data_map(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return in_file(fail_errno(errno, "cannot open"), path);
  if (static_cast<uint64_t>(file.tellg()) > kMaxFile) {
    return in_file(fail(ErrorKind::kLimit, "has more than {} bytes", kMaxFile), path);
  }
  file.seekg(0);
  const auto list = nlohmann::json::parse(file, nullptr, false);
  if (!list.is_array()) return malformed(path, "is no JSON array");
  std::vector<DataRange> ranges;
  uint64_t known = 0;  // where the entries so far end
  for (const auto& entry : list) {
    const auto number = [&](const char* key) -> std::optional<uint64_t> {
      const auto found = entry.is_object() ? entry.find(key) : entry.end();
      if (!entry.is_object() || found == entry.end() || !found->is_number_unsigned()) {
        return std::nullopt;
      }
      return found->get<uint64_t>();
    };
    const auto start = number("start");
    const auto length = number("length");
    if (!start || !length || *start < known || *length == 0 || *start + *length < *start) {
      return malformed(path, "has an entry whose \"start\" or \"length\" cannot be");
    }
    known = *start + *length;
    const auto data = entry.find("data");
    if (data == entry.end() || !data->is_boolean()) {
      return malformed(path, "has an entry whose \"data\" is neither true nor false");
    }
    if (!data->template get<bool>()) continue;
    if (!ranges.empty() && ranges.back().end == *start) {
      ranges.back().end = known;
    } else {
      ranges.push_back({.begin = *start, .end = known});
    }
  }
  return ranges;
}

std::shared_ptr<const Source> with_data_map(std::shared_ptr<const Source> source,
                                            std::vector<DataRange> ranges, FileHoles holes) {
  return std::make_shared<MappedSource>(std::move(source), std::move(ranges), holes);
}

}  // namespace underlay::img
