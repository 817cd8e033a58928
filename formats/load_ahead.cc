#include "formats/load_ahead.h"

#include "formats/libyal/libyal_library.h"
#include "formats/text_encoding.h"

namespace underlay {

void load_for_later_images(ReaderChoice reader) {
  load_text_encodings();
  (void)libyal::libqcow();  // qcow is always read by it
  if (reader == ReaderChoice::kLibyal) (void)libyal::libvhdi();
}

}  // namespace underlay
