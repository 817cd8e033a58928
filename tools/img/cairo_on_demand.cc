// cairo's functions, as far as this program uses them. Linked as usual, cairo would bring the X
// libraries to the start of every command, and to hosts that draw nothing.
#include "tools/img/cairo_on_demand.h"

#include <cairo-svg.h>

#include "io/on_demand.h"

namespace {

const underlay::LibraryOnDemand& cairo() {
  static const underlay::LibraryOnDemand loaded("libcairo.so.2");
  return loaded;
}

}  // namespace

namespace underlay::img {

Result<void> load_cairo() {
  if (cairo().is_there()) return {};
  return fail(
      ErrorKind::kUnsupported,
      "libcairo.so.2, which draws pictures, cannot be loaded: install the package libcairo2");
}

}  // namespace underlay::img

void cairo_clip(cairo_t* cr) { return cairo().call<&cairo_clip>("cairo_clip", cr); }
cairo_t* cairo_create(cairo_surface_t* target) {
  return cairo().call<&cairo_create>("cairo_create", target);
}
void cairo_destroy(cairo_t* cr) { return cairo().call<&cairo_destroy>("cairo_destroy", cr); }
void cairo_fill(cairo_t* cr) { return cairo().call<&cairo_fill>("cairo_fill", cr); }
void cairo_fill_extents(cairo_t* cr, double* x1, double* y1, double* x2, double* y2) {
  return cairo().call<&cairo_fill_extents>("cairo_fill_extents", cr, x1, y1, x2, y2);
}
void cairo_fill_preserve(cairo_t* cr) {
  return cairo().call<&cairo_fill_preserve>("cairo_fill_preserve", cr);
}
cairo_surface_t* cairo_image_surface_create(cairo_format_t format, int width, int height) {
  return cairo().call<&cairo_image_surface_create>("cairo_image_surface_create", format, width,
                                                   height);
}
void cairo_line_to(cairo_t* cr, double x, double y) {
  return cairo().call<&cairo_line_to>("cairo_line_to", cr, x, y);
}
void cairo_move_to(cairo_t* cr, double x, double y) {
  return cairo().call<&cairo_move_to>("cairo_move_to", cr, x, y);
}
void cairo_rectangle(cairo_t* cr, double x, double y, double width, double height) {
  return cairo().call<&cairo_rectangle>("cairo_rectangle", cr, x, y, width, height);
}
void cairo_restore(cairo_t* cr) { return cairo().call<&cairo_restore>("cairo_restore", cr); }
void cairo_save(cairo_t* cr) { return cairo().call<&cairo_save>("cairo_save", cr); }
void cairo_select_font_face(cairo_t* cr, const char* family, cairo_font_slant_t slant,
                            cairo_font_weight_t weight) {
  return cairo().call<&cairo_select_font_face>("cairo_select_font_face", cr, family, slant, weight);
}
void cairo_set_font_size(cairo_t* cr, double size) {
  return cairo().call<&cairo_set_font_size>("cairo_set_font_size", cr, size);
}
void cairo_set_line_width(cairo_t* cr, double width) {
  return cairo().call<&cairo_set_line_width>("cairo_set_line_width", cr, width);
}
void cairo_set_source_rgb(cairo_t* cr, double red, double green, double blue) {
  return cairo().call<&cairo_set_source_rgb>("cairo_set_source_rgb", cr, red, green, blue);
}
void cairo_show_text(cairo_t* cr, const char* utf8) {
  return cairo().call<&cairo_show_text>("cairo_show_text", cr, utf8);
}
cairo_status_t cairo_status(cairo_t* cr) { return cairo().call<&cairo_status>("cairo_status", cr); }
const char* cairo_status_to_string(cairo_status_t status) {
  return cairo().call<&cairo_status_to_string>("cairo_status_to_string", status);
}
void cairo_stroke(cairo_t* cr) { return cairo().call<&cairo_stroke>("cairo_stroke", cr); }
void cairo_surface_destroy(cairo_surface_t* surface) {
  return cairo().call<&cairo_surface_destroy>("cairo_surface_destroy", surface);
}
void cairo_surface_finish(cairo_surface_t* surface) {
  return cairo().call<&cairo_surface_finish>("cairo_surface_finish", surface);
}
cairo_status_t cairo_surface_status(cairo_surface_t* surface) {
  return cairo().call<&cairo_surface_status>("cairo_surface_status", surface);
}
cairo_status_t cairo_surface_write_to_png_stream(cairo_surface_t* surface,
                                                 cairo_write_func_t write_func, void* closure) {
  return cairo().call<&cairo_surface_write_to_png_stream>("cairo_surface_write_to_png_stream",
                                                          surface, write_func, closure);
}
cairo_surface_t* cairo_svg_surface_create_for_stream(cairo_write_func_t write_func, void* closure,
                                                     double width_in_points,
                                                     double height_in_points) {
  return cairo().call<&cairo_svg_surface_create_for_stream>("cairo_svg_surface_create_for_stream",
                                                            write_func, closure, width_in_points,
                                                            height_in_points);
}
void cairo_text_extents(cairo_t* cr, const char* utf8, cairo_text_extents_t* extents) {
  return cairo().call<&cairo_text_extents>("cairo_text_extents", cr, utf8, extents);
}
