#include "tools/img/canvas.h"

#include <cairo-svg.h>

#include <cmath>
#include <new>

#include "tools/img/cairo_on_demand.h"

namespace underlay::img {
namespace {

constexpr const char* kFont = "sans";
constexpr double kStripeDistance = 4;
constexpr double kStripeWidth = 1.5;
constexpr double kStripeGround = 0.35;

cairo_status_t append(void* bytes, const unsigned char* data, unsigned int length) {
  try {
    static_cast<std::string*>(bytes)->append(reinterpret_cast<const char*>(data), length);
    return CAIRO_STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return CAIRO_STATUS_NO_MEMORY;
  }
}

std::string xml_text(const std::string& text) {
  std::string escaped;
  for (const char byte : text) {
    switch (byte) {
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '&':
        escaped += "&amp;";
        break;
      default:
        escaped += byte;
    }
  }
  return escaped;
}

}  // namespace

void Canvas::Free::operator()(cairo_t* context) const { cairo_destroy(context); }
void Canvas::Free::operator()(cairo_surface_t* surface) const { cairo_surface_destroy(surface); }

Result<Canvas> Canvas::create(PictureFormat format, int width, int height) {
  TRY(load_cairo());
  Canvas canvas;
  canvas.format_ = format;
  canvas.width_ = width;
  canvas.height_ = height;
  canvas.surface_.reset(
      format == PictureFormat::kSvg
          ? cairo_svg_surface_create_for_stream(append, canvas.bytes_.get(), width, height)
          : cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height));
  canvas.context_.reset(cairo_create(canvas.surface_.get()));
  canvas.add_rectangle(0, 0, width, height);
  canvas.fill(colour(0xffffff));
  return canvas;
}

void Canvas::set(const Colour& with) {
  cairo_set_source_rgb(context_.get(), with.red, with.green, with.blue);
}

double Canvas::text_width(const std::string& text, const TextStyle& style) {
  cairo_select_font_face(context_.get(), kFont, CAIRO_FONT_SLANT_NORMAL,
                         style.bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(context_.get(), style.size);
  cairo_text_extents_t extents;
  cairo_text_extents(context_.get(), text.c_str(), &extents);
  return extents.x_advance;
}

void Canvas::text(double x, double y, const std::string& text, const TextStyle& style) {
  const double width = text_width(text, style);
  if (style.align == TextStyle::Align::kRight) x -= width;
  if (style.align == TextStyle::Align::kCentre) x -= width / 2;
  set(style.of);
  cairo_move_to(context_.get(), x, y);
  cairo_show_text(context_.get(), text.c_str());
}

void Canvas::add_rectangle(double x, double y, double width, double height) {
  cairo_rectangle(context_.get(), x, y, width, height);
}

void Canvas::fill(const Colour& with) {
  set(with);
  cairo_fill(context_.get());
}

void Canvas::fill_striped(const Colour& with) {
  set(tint(with, kStripeGround));
  cairo_fill_preserve(context_.get());
  double left = 0;
  double top = 0;
  double right = 0;
  double bottom = 0;
  cairo_fill_extents(context_.get(), &left, &top, &right, &bottom);
  cairo_save(context_.get());
  cairo_clip(context_.get());
  // Each stripe is where x + y is a multiple of the distance, so that neighbours go on.
  const double height = bottom - top;
  const double first = std::floor((left - height + bottom) / kStripeDistance) * kStripeDistance;
  for (double x = first - bottom; x < right; x += kStripeDistance) {
    cairo_move_to(context_.get(), x, bottom);
    cairo_line_to(context_.get(), x + height, top);
  }
  set(with);
  cairo_set_line_width(context_.get(), kStripeWidth);
  cairo_stroke(context_.get());
  cairo_restore(context_.get());
}

void Canvas::line(double x1, double y1, double x2, double y2, const Colour& with) {
  set(with);
  cairo_set_line_width(context_.get(), 1);
  cairo_move_to(context_.get(), x1, y1);
  cairo_line_to(context_.get(), x2, y2);
  cairo_stroke(context_.get());
}

Result<std::string> Canvas::finish(const std::string& title, const std::string& description) {
  cairo_status_t status = cairo_status(context_.get());
  context_.reset();
  if (status == CAIRO_STATUS_SUCCESS && format_ == PictureFormat::kPng) {
    status = cairo_surface_write_to_png_stream(surface_.get(), append, bytes_.get());
  }
  cairo_surface_finish(surface_.get());
  if (status == CAIRO_STATUS_SUCCESS) status = cairo_surface_status(surface_.get());
  if (status != CAIRO_STATUS_SUCCESS) {
    return fail(ErrorKind::kIo, "the picture cannot be drawn: {}", cairo_status_to_string(status));
  }
  if (format_ == PictureFormat::kSvg) {
    const size_t root = bytes_->find("<svg");
    const size_t end = root == std::string::npos ? root : bytes_->find('>', root);
    if (end == std::string::npos) return fail(ErrorKind::kIo, "cairo has made no SVG");
    bytes_->insert(end + 1, "\n<title>" + xml_text(title) + "</title>\n<desc>" +
                                xml_text(description) + "</desc>");
  }
  return std::move(*bytes_);
}

}  // namespace underlay::img
