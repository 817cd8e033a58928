#include "tools/img/dump_text.h"

#include <algorithm>
#include <charconv>

#include "tools/img/say.h"

namespace underlay::img {
namespace {

// After so many lines of a structure their columns are taken to be as wide as they get: a table may
// have any number.
constexpr size_t kLinesToAlign = 64;

// Numbers from here on are addresses, sizes or flags: their hexadecimal digits tell more.
constexpr uint64_t kAlsoInHex = 4096;

std::string value_text(const nlohmann::ordered_json& value) {
  if (value.is_string()) return printable(value.get_ref<const std::string&>());
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    return number < kAlsoInHex ? fmt::format("{}", number)
                               : fmt::format("{} = 0x{:x}", number, number);
  }
  return printable(json_in_one_line(value));
}

// The N of "TABLE[N]".
std::optional<uint64_t> entry_number(std::string_view name) {
  const size_t bracket = name.rfind('[');
  if (bracket == std::string_view::npos || !name.ends_with(']')) return std::nullopt;
  const std::string_view digits = name.substr(bracket + 1, name.size() - bracket - 2);
  uint64_t number = 0;
  const char* const end = digits.data() + digits.size();
  const auto [rest, error] = std::from_chars(digits.data(), end, number);
  if (digits.empty() || error != std::errc() || rest != end) return std::nullopt;
  return number;
}

}  // namespace

void DumpText::print(DumpedStructure structure) {
  end_run();
  print_lines();
  if (choice().fields && !first_structure_) fmt::print(out_, "\n");
  first_structure_ = false;
  name_width_ = 0;
  fmt::print(out_, "{}: {} bytes at 0x{:x}\n", printable(structure.name), structure.length,
             structure.offset);
}

void DumpText::print(DumpedField field) {
  Run run{.first = std::move(field), .table = {}, .number = std::nullopt};
  run.number = entry_number(run.first.name);
  if (run.number) run.table = run.first.name.substr(0, run.first.name.rfind('['));
  if (!all_ && continues(run)) {
    ++run_->count;
    return;
  }
  end_run();
  run_ = std::move(run);
}

bool DumpText::continues(const Run& field) const {
  if (!run_ || !run_->number || !field.number) return false;
  const DumpedField& first = run_->first;
  const DumpedField& next = field.first;
  const auto bytes = checked_mul(run_->count, first.length);
  return *field.number > *run_->number && *field.number - *run_->number == run_->count && bytes &&
         next.offset >= first.offset && next.offset - first.offset == *bytes &&
         next.length == first.length && next.value == first.value &&
         next.meaning == first.meaning && next.bytes == first.bytes && field.table == run_->table;
}

void DumpText::end_run() {
  if (!run_) return;
  const DumpedField& field = run_->first;
  Line line{.offset = fmt::format("0x{:08x}", field.offset),
            .name = printable(field.name),
            .value = value_text(field.value),
            .bytes = field.bytes};
  if (run_->count > 1) {
    line.name = printable(
        fmt::format("{}[{}..{}]", run_->table, *run_->number, *run_->number + run_->count - 1));
  }
  if (!field.meaning.empty()) line.value += fmt::format("  ({})", printable(field.meaning));
  lines_.push_back(std::move(line));
  run_.reset();
  if (lines_.size() >= kLinesToAlign) print_lines();
}

void DumpText::print_lines() {
  for (const Line& line : lines_) name_width_ = std::max(name_width_, line.name.size());
  for (const Line& line : lines_) {
    if (line.value.empty()) {
      fmt::print(out_, "  {}  {}\n", line.offset, line.name);
    } else {
      fmt::print(out_, "  {}  {:<{}}  {}\n", line.offset, line.name, name_width_, line.value);
    }
    if (!line.bytes.empty()) fmt::print(out_, "              {}\n", line.bytes);
  }
  lines_.clear();
}

// What failed is told on standard error.
void DumpText::end(bool /*whole*/) {
  end_run();
  print_lines();
}

}  // namespace underlay::img
