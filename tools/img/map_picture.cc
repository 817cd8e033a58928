// Drawn from above: title, proportions, the grid with its rulers, how to read it, legend.
#include "tools/img/map_picture.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "tools/img/map_grid.h"
#include "tools/img/qemu_size.h"

namespace underlay::img {
namespace {

using Kind = MapClass::Kind;
constexpr std::array kKinds = {Kind::kData, Kind::kCompressed, Kind::kZero};
constexpr std::array kKindNames = {"data", "compressed", "zeros"};

// Pixels.
constexpr int kMargin = 24;
constexpr int kRulerWidth = 96;
constexpr int kGridWidth = static_cast<int>(MapCells::kColumns) * kCellPixels;
constexpr int kGridX = kMargin + kRulerWidth;
constexpr int kWidth = kGridX + kGridWidth + kMargin;
constexpr int kTitleBase = kMargin + 20;
constexpr int kSubtitleBase = kTitleBase + 22;
constexpr int kBarY = kSubtitleBase + 16;
constexpr int kBarHeight = 18;
constexpr int kGridY = kBarY + kBarHeight + 40;
constexpr int kLegendRow = 24;
constexpr int kLegendNameX = kMargin + 56;
constexpr std::array kLegendColumns = {460, 645, 830};  // x of data, compressed, zeros
constexpr int kSwatch = kCellPixels - 1;

constexpr TextStyle kTitle{.size = 20, .bold = true};
constexpr TextStyle kPlain{.size = 13};
constexpr TextStyle kHeading{.size = 13, .bold = true};
constexpr TextStyle kFaint{.size = 12, .of = colour(0x555555)};
constexpr TextStyle kRowLabel{
    .size = 11, .of = colour(0x555555), .align = TextStyle::Align::kRight};
constexpr TextStyle kColumnLabel{
    .size = 11, .of = colour(0x555555), .align = TextStyle::Align::kCentre};
constexpr Colour kTick = colour(0x999999);

// In the largest unit that gives a whole number, so that the labels of a ruler are exact.
std::string exact_size(uint64_t bytes) {
  constexpr std::array kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  size_t unit = 0;
  while (bytes != 0 && bytes % 1024 == 0 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{} {}", bytes, kUnits[unit]);
}

std::string percentage(uint64_t bytes, uint64_t total) {
  const double percent = 100 * static_cast<double>(bytes) / static_cast<double>(total);
  if (bytes > 0 && percent < 0.1) return "< 0.1 %";
  if (bytes < total && percent > 99.9) return "> 99.9 %";
  return fmt::format("{:.1f} %", percent);
}

// `text`, cut in its middle to what fits.
std::string fitting(Canvas& canvas, const std::string& text, int width, const TextStyle& style) {
  constexpr const char* kCut = "\u2026";
  if (canvas.text_width(text, style) <= width) return text;
  // Not within a character of UTF-8, whose further bytes begin with 10.
  const auto starts = [&](size_t at) { return (static_cast<uint8_t>(text[at]) & 0xc0) != 0x80; };
  for (size_t keep = text.size() / 2; keep > 0; --keep) {
    size_t tail = text.size() - keep;
    size_t head = keep;
    while (head > 0 && !starts(head)) --head;
    while (tail < text.size() && !starts(tail)) ++tail;
    const std::string cut = text.substr(0, head) + kCut + text.substr(tail);
    if (canvas.text_width(cut, style) <= width) return cut;
  }
  return kCut;
}

class Picture {
 public:
  Picture(const Disk& disk, const MapCells& cells, const MapLegend& legend, Canvas& canvas)
      : disk_(disk), cells_(cells), legend_(legend), canvas_(canvas) {}

  static int height(const MapCells& cells, const MapLegend& legend) {
    return legend_y(cells) + (static_cast<int>(legend.groups().size()) + 2) * kLegendRow + kMargin;
  }

  void draw() {
    draw_title();
    if (cells_.length() > 0) {
      draw_bar();
      draw_rulers();
      draw_grid(canvas_, kGridX, kGridY, cells_, legend_);
      draw_caption();
    }
    draw_legend();
  }

 private:
  static int legend_y(const MapCells& cells) {
    return kGridY + static_cast<int>(cells.rows()) * kCellPixels + 60;
  }

  void draw_title() {
    const std::string name = name_in_picture(disk_.layers().front());
    canvas_.text(kMargin, kTitleBase, fitting(canvas_, name, kWidth - 2 * kMargin, kTitle), kTitle);
    std::string line = fmt::format("{} ({} bytes)", qemu_size(disk_.size()), disk_.size());
    const size_t images = disk_.layers().size();
    if (images > 1) line += fmt::format(", a chain of {} images", images);
    if (cells_.length() != disk_.size()) {
      line += fmt::format("; shown: {} bytes from byte {} on", cells_.length(), cells_.start());
    }
    canvas_.text(kMargin, kSubtitleBase, line, kPlain);
  }

  // All of the disk as one bar.
  void draw_bar() {
    canvas_.text(kGridX - 10, kBarY + kBarHeight - 5, "in all", kRowLabel);
    MapBytes all;
    const auto& groups = legend_.groups();
    for (size_t i = 0; i < groups.size(); ++i) {
      for (const Kind kind : kKinds) {
        const uint64_t bytes = groups[i].bytes[static_cast<size_t>(kind)];
        if (bytes > 0) all[{.layer = static_cast<uint32_t>(i), .kind = kind}] = bytes;
      }
    }
    int x = kGridX;
    for (const MapSlice& slice : slices_of(all, kGridWidth - 1)) {
      canvas_.add_rectangle(x, kBarY, slice.pixels, kBarHeight);
      paint(canvas_, groups[slice.shade.layer], slice.shade.kind);
      x += slice.pixels;
    }
  }

  void draw_rulers() {
    constexpr int kColumnStep = 16;
    for (int column = 0; column < static_cast<int>(MapCells::kColumns); column += kColumnStep) {
      const double x = kGridX + column * kCellPixels + 0.5;
      canvas_.line(x, kGridY - 6, x, kGridY - 1, kTick);
      if (column == 0) continue;
      const uint64_t bytes = static_cast<uint64_t>(column) * cells_.cell_bytes();
      canvas_.text(x, kGridY - 10, fmt::format("+ {}", exact_size(bytes)), kColumnLabel);
    }
    const int rows = static_cast<int>(cells_.rows());
    const int step = rows > 32 ? 8 : rows > 8 ? 4 : 1;
    for (int row = 0; row < rows; row += step) {
      const double y = kGridY + row * kCellPixels + 0.5;
      const uint64_t bytes = static_cast<uint64_t>(row) * MapCells::kColumns * cells_.cell_bytes();
      canvas_.line(kGridX - 6, y, kGridX - 1, y, kTick);
      canvas_.text(kGridX - 10, y + 4, exact_size(cells_.start() + bytes), kRowLabel);
    }
  }

  void draw_caption() {
    const uint64_t row = MapCells::kColumns * cells_.cell_bytes();
    const int y = kGridY + static_cast<int>(cells_.rows()) * kCellPixels + 20;
    canvas_.text(
        kGridX, y,
        fmt::format("A cell is {}, a row {}; rows are read like text. A cell is filled "
                    "from below, as far as it is stored, and visibly so when it is little.",
                    exact_size(cells_.cell_bytes()), exact_size(row)),
        kFaint);
  }

  void draw_legend() {
    int y = legend_y(cells_);
    canvas_.text(kMargin, y, "depth", kHeading);
    canvas_.text(kLegendNameX, y, "image", kHeading);
    for (size_t i = 0; i < kKinds.size(); ++i) {
      canvas_.text(kLegendColumns[i], y, kKindNames[i], kHeading);
    }
    canvas_.line(kMargin, y + 7.5, kWidth - kMargin, y + 7.5, kTick);
    std::array<uint64_t, kKinds.size()> sums{};
    for (const MapGroup& group : legend_.groups()) {
      y += kLegendRow;
      draw_legend_row(group, y);
      for (size_t i = 0; i < kKinds.size(); ++i) sums[i] += group.bytes[i];
    }
    y += kLegendRow;
    canvas_.line(kMargin, y - 15.5, kWidth - kMargin, y - 15.5, kTick);
    canvas_.text(kLegendNameX, y, "together", kPlain);
    for (size_t i = 0; i < kKinds.size(); ++i) draw_amount(kLegendColumns[i], y, sums[i]);
  }

  void draw_legend_row(const MapGroup& group, int y) {
    const int width = kLegendColumns.front() - kLegendNameX - 16;
    canvas_.text(kMargin, y, group.depth, kPlain);
    canvas_.text(kLegendNameX, y, fitting(canvas_, group.name, width, kPlain), kPlain);
    for (size_t i = 0; i < kKinds.size(); ++i) {
      if (group.bytes[i] == 0) continue;
      draw_swatch(kLegendColumns[i], y - kSwatch + 2, group, kKinds[i]);
      draw_amount(kLegendColumns[i], y, group.bytes[i]);
    }
  }

  // With a frame, which the light ones need.
  void draw_swatch(int x, int y, const MapGroup& group, Kind kind) {
    canvas_.add_rectangle(x - 1, y - 1, kSwatch + 2, kSwatch + 2);
    canvas_.fill(kTick);
    canvas_.add_rectangle(x, y, kSwatch, kSwatch);
    canvas_.fill(colour(0xffffff));
    canvas_.add_rectangle(x, y, kSwatch, kSwatch);
    paint(canvas_, group, kind);
  }

  // Beside the place of a swatch.
  void draw_amount(int x, int y, uint64_t bytes) {
    if (bytes == 0) return;
    canvas_.text(x + kSwatch + 8, y,
                 fmt::format("{}, {}", qemu_size(bytes), percentage(bytes, cells_.length())),
                 kPlain);
  }

  const Disk& disk_;
  const MapCells& cells_;
  const MapLegend& legend_;
  Canvas& canvas_;
};

// For who cannot see the picture, and for programs: every image with its bytes.
std::string description_of(const Disk& disk, const MapBytes& totals) {
  const auto& layers = disk.layers();
  std::string text;
  const auto add = [&](const std::string& name, uint32_t layer) {
    std::string line;
    for (const Kind kind : kKinds) {
      const auto found = totals.find({.layer = layer, .kind = kind});
      if (found == totals.end()) continue;
      line += fmt::format("{} {} bytes of {}", line.empty() ? "" : ",", found->second,
                          kKindNames[static_cast<size_t>(kind)]);
    }
    text += fmt::format("{}:{}\n", name, line.empty() ? " nothing" : line);
  };
  for (size_t i = 0; i < layers.size(); ++i) {
    add(name_in_picture(layers[i]), static_cast<uint32_t>(i));
  }
  add("in no image", MapClass::kNowhere);
  return text;
}

}  // namespace

std::optional<PictureFormat> picture_format(std::string_view name) {
  if (name == "svg") return PictureFormat::kSvg;
  if (name == "png") return PictureFormat::kPng;
  return std::nullopt;
}

Result<void> check_picture_output(PictureFormat format) {
  if (format == PictureFormat::kPng && ::isatty(STDOUT_FILENO) == 1) {
    return fail(ErrorKind::kUsage, "a PNG is not for a terminal: add > FILE");
  }
  return {};
}

Result<void> print_picture(const Disk& disk, uint64_t start, uint64_t end, PictureFormat format,
                           Progress& progress) {
  MapCells cells(start, end);
  TRY(each_map_entry(disk, start, end, &progress, [&](const MapEntry& entry) -> Result<void> {
    cells.add(entry);
    return {};
  }));
  const MapLegend legend(disk.layers(), cells.totals());
  Canvas canvas = TRY(Canvas::create(format, kWidth, Picture::height(cells, legend)));
  Picture(disk, cells, legend, canvas).draw();
  const std::string bytes = TRY(
      canvas.finish(name_in_picture(disk.layers().front()), description_of(disk, cells.totals())));
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
  return {};
}

}  // namespace underlay::img
