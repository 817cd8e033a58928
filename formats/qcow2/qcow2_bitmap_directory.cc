#include "formats/qcow2/qcow2_bitmap_directory.h"

#include <array>

namespace underlay {

Result<Qcow2BitmapDirectory::Item> Qcow2BitmapDirectory::next() {
  auto item = parse();
  if (!item) return in_file(std::move(item).error(), file_.name(), at_);
  at_ += item->entry.total_bytes();
  --left_;
  return item;
}

Result<Qcow2BitmapDirectory::Item> Qcow2BitmapDirectory::parse() {
  TRY(check_present(Qcow2BitmapEntry::kFixedBytes));
  std::array<std::byte, Qcow2BitmapEntry::kFixedBytes> fixed;
  TRY(file_.read_at(at_, fixed));
  Item item;
  item.entry = TRY(parse_qcow2_bitmap_entry(fixed));
  item.offset = at_;
  TRY(check_present(item.entry.total_bytes()));
  variable_.resize(item.entry.variable_bytes());
  TRY(file_.read_at(at_ + Qcow2BitmapEntry::kFixedBytes, variable_));
  item.name = as_text(variable_).substr(item.entry.extra_data_size);
  return item;
}

Result<void> Qcow2BitmapDirectory::check_present(uint64_t length) const {
  if (range_within(at_, length, end_)) return {};
  return fail(ErrorKind::kMalformed,
              "the bitmap directory ends before its {} last bitmaps: it is damaged", left_);
}

}  // namespace underlay
