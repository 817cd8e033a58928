// Drawing in pixels, into an SVG or a PNG.
#pragma once

#include <cairo.h>

#include <memory>
#include <string>

#include "io/error.h"

namespace underlay::img {

enum class PictureFormat : uint8_t { kSvg, kPng };

struct Colour {
  double red = 0;
  double green = 0;
  double blue = 0;
  bool operator==(const Colour&) const = default;
};
// The colour that 0xRRGGBB is in HTML.
constexpr Colour colour(uint32_t rgb) {
  return {.red = static_cast<double>(rgb >> 16 & 0xff) / 255,
          .green = static_cast<double>(rgb >> 8 & 0xff) / 255,
          .blue = static_cast<double>(rgb & 0xff) / 255};
}

// Mixes with white: 0 is white, 1 the colour.
constexpr Colour tint(const Colour& of, double strength) {
  const auto mixed = [&](double part) { return 1 - (1 - part) * strength; };
  return {.red = mixed(of.red), .green = mixed(of.green), .blue = mixed(of.blue)};
}

struct TextStyle {
  double size = 12;  // pixels
  bool bold = false;
  Colour of = colour(0x222222);
  enum class Align : uint8_t { kLeft, kCentre, kRight };
  Align align = Align::kLeft;
};

// Not thread-safe.
class Canvas {
 public:
  // White. Fails when the drawing library is not there.
  static Result<Canvas> create(PictureFormat format, int width, int height);

  // `y`: the text's base line. `text` is UTF-8 without control characters (printable()).
  void text(double x, double y, const std::string& text, const TextStyle& style);
  double text_width(const std::string& text, const TextStyle& style);

  // Rectangles are collected, and filled together: a picture has thousands of them.
  void add_rectangle(double x, double y, double width, double height);
  void fill(const Colour& with);
  // With a light ground, and stripes of the colour on it.
  void fill_striped(const Colour& with);
  void line(double x1, double y1, double x2, double y2, const Colour& with);

  // The file. An SVG has `title` and `description` for who cannot see it. Nothing can be drawn
  // afterwards.
  Result<std::string> finish(const std::string& title, const std::string& description);

 private:
  struct Free {
    void operator()(cairo_t* context) const;
    void operator()(cairo_surface_t* surface) const;
  };
  Canvas() = default;
  void set(const Colour& with);

  PictureFormat format_ = PictureFormat::kSvg;
  int width_ = 0;
  int height_ = 0;
  std::unique_ptr<std::string> bytes_ = std::make_unique<std::string>();
  std::unique_ptr<cairo_surface_t, Free> surface_;
  std::unique_ptr<cairo_t, Free> context_;
};

}  // namespace underlay::img
