#include "formats/vhd/vhd_footer.h"

#include <algorithm>
#include <cassert>

namespace underlay::vhd {
namespace {

using State = ExaminedFooter::State;

// What tapdisk writes over the trailing footer while it writes to the image.
constexpr std::byte kInUse{0xc7};

struct Trailing {
  ExaminedFooter footer;
  size_t bytes = 0;  // that it takes at the end of the file; 0 when there is none
};

Trailing examine_tail(ByteSpan tail) {
  Trailing best;
  for (const size_t bytes : {kFooterBytes, kShortFooterBytes}) {
    if (tail.size() < bytes) continue;
    ExaminedFooter examined = examine_footer(tail.last(bytes));
    if (examined.state > best.footer.state) {
      best = Trailing{.footer = std::move(examined), .bytes = bytes};
    }
  }
  if (best.footer.state == State::kNone && tail.size() >= kFooterBytes) {
    const ByteSpan last = tail.last(kFooterBytes);
    if (std::all_of(last.begin(), last.end(), [](std::byte b) { return b == kInUse; })) {
      best.bytes = kFooterBytes;
    }
  }
  return best;
}

std::string defect_of(const Trailing& trailing) {
  if (trailing.footer.state != State::kNone) return trailing.footer.defect;
  if (trailing.bytes == 0) return "is missing (is the file truncated?)";
  return "was overwritten by tapdisk, as long as it writes to the image (is it in use?)";
}

// What the copy at 0 of a sparse image says against its trailing footer; nullopt: nothing.
std::optional<Remark> copy_disagreement(const ExaminedFooter& copy, const Footer& trailing) {
  if (copy.state == State::kNone) {
    return Remark{
        .code = "footer-copy-missing",
        .text = "the copy of the footer at byte 0 is missing; the trailing footer is used",
        .is_damage = true};
  }
  if (copy.state != State::kWhole) {
    return Remark{
        .code = "footer-copy-damaged",
        .text = fmt::format("the copy of the footer at byte 0 {}; the trailing footer is used",
                            copy.defect),
        .is_damage = true};
  }
  if (copy.footer == trailing) return std::nullopt;
  return Remark{
      .code = "footers-differ",
      .text = "the copy of the footer at byte 0 differs from the trailing footer, which is used",
      .is_damage = true};
}

constexpr std::string_view kOverwritten = "footer-overwritten";

std::string_view code_of(const Trailing& trailing) {
  if (trailing.footer.state != State::kNone) return "footer-damaged";
  return trailing.bytes == 0 ? "footer-missing" : kOverwritten;
}

FoundFooter of_copy(const ExaminedFooter& copy, const Trailing& trailing, uint64_t size) {
  return FoundFooter{.footer = copy.footer,
                     .at = 0,
                     .data_end = size - trailing.bytes,
                     .copy = std::nullopt,
                     .is_rival = false,
                     .remarks = {}};
}

FoundFooter of_trailing(const Trailing& trailing, uint64_t size) {
  return FoundFooter{.footer = trailing.footer.footer,
                     .at = size - trailing.bytes,
                     .data_end = size - trailing.bytes,
                     .copy = std::nullopt,
                     .is_rival = false,
                     .remarks = {}};
}

// No whole trailing footer: the copy at 0 of a sparse image may stand in for it.
Result<FoundFooter> find_copy(const ExaminedFooter& copy, const Trailing& trailing, uint64_t size,
                              Defects& defects) {
  const bool trailing_damaged = trailing.footer.state != State::kNone;
  if (copy.state == State::kNone && !trailing_damaged) {
    return fail(ErrorKind::kNotFound, "no VHD footer (\"conectix\") at the end of the file");
  }
  if (copy.state != State::kWhole) {
    defects.add(
        "footers-damaged",
        fail(ErrorKind::kMalformed, "the trailing VHD footer {}, and the copy at byte 0 {}",
             defect_of(trailing), copy.state == State::kNone ? "does not exist" : copy.defect));
    return trailing_damaged ? of_trailing(trailing, size) : of_copy(copy, trailing, size);
  }
  // In a fixed disk, the bytes at 0 are the guest's.
  if (copy.footer.disk_type == kTypeFixed ||
      (trailing_damaged && trailing.footer.footer.disk_type == kTypeFixed)) {
    defects.add("footers-damaged",
                fail(ErrorKind::kMalformed,
                     "the trailing VHD footer {}; a fixed disk has no copy of it, so the one at "
                     "byte 0 may be the guest's",
                     defect_of(trailing)));
    return trailing_damaged ? of_trailing(trailing, size) : of_copy(copy, trailing, size);
  }
  FoundFooter found = of_copy(copy, trailing, size);
  found.copy = copy.footer;
  // Overwritten, it is as tapdisk leaves it while it writes.
  const std::string_view code = code_of(trailing);
  found.remarks.push_back({.code = code,
                           .text = fmt::format("the trailing footer {}; the copy at byte 0 is used",
                                               defect_of(trailing)),
                           .is_damage = code != kOverwritten});
  return found;
}

void add_disabled(std::string_view where, const ExaminedFooter& footer, Defects& defects) {
  defects.add("resizing", fail(ErrorKind::kMalformed, "the {} {}", where, footer.defect));
}

// Of a whole trailing footer of a sparse image: what the copy has to say.
void compare_with_copy(const ExaminedFooter& copy, FoundFooter& found) {
  if (copy.state == State::kWhole && copy.footer.is_sparse() &&
      copy.footer.unique_id != found.footer.unique_id) {
    found.copy = copy.footer;
    found.is_rival = true;
    return;
  }
  if (auto remark = copy_disagreement(copy, found.footer)) {
    found.remarks.push_back(*std::move(remark));
  }
}

}  // namespace

Result<FoundFooter> find_footer(ByteSpan head, ByteSpan tail, uint64_t size, Defects& defects) {
  const Trailing trailing = examine_tail(tail);
  ExaminedFooter copy;
  // In a smaller file, the first sector is (a part of) the trailing footer.
  if (size >= kFooterBytes + kShortFooterBytes && head.size() >= kFooterBytes) {
    copy = examine_footer(head.first(kFooterBytes));
  }
  if (trailing.footer.state == State::kDisabled) {
    add_disabled("trailing VHD footer", trailing.footer, defects);
    return of_trailing(trailing, size);
  }
  const bool whole = trailing.footer.state == State::kWhole;
  const bool sparse = !whole || trailing.footer.footer.is_sparse();
  if (sparse && copy.state == State::kDisabled) {
    add_disabled("copy of the VHD footer at byte 0", copy, defects);
    return whole ? of_trailing(trailing, size) : of_copy(copy, trailing, size);
  }
  if (!whole) return find_copy(copy, trailing, size, defects);

  FoundFooter found = of_trailing(trailing, size);
  if (copy.state == State::kWhole && copy.footer.unique_id == found.footer.unique_id &&
      copy.footer.disk_type != found.footer.disk_type) {
    defects.add("footers-contradict",
                fail(ErrorKind::kMalformed,
                     "the trailing VHD footer has disk_type {}, but the copy at byte 0 has {}: one "
                     "of them is wrong; write the right one to both places",
                     found.footer.disk_type, copy.footer.disk_type));
    return found;
  }
  if (sparse) {
    compare_with_copy(copy, found);
  } else if (copy.state == State::kWhole && copy.footer.is_sparse()) {
    // The guest's own bytes, or a device that held a fixed disk before.
    found.remarks.push_back(
        {.code = "sparse-footer-in-fixed",
         .text = fmt::format(
             "begins with the footer of a sparse image, {}, but ends with that of a fixed disk, "
             "{}: all before that is taken for the disk's bytes",
             to_string(copy.footer.unique_id), to_string(found.footer.unique_id))});
  }
  return found;
}

std::optional<FoundFooter> settled_by_footer_at(uint64_t at, ByteSpan bytes, uint64_t size,
                                                const FoundFooter& found) {
  assert(found.copy);
  const ExaminedFooter behind = examine_footer(bytes);
  if (behind.state != State::kWhole || behind.footer != *found.copy) return std::nullopt;
  FoundFooter settled{.footer = *found.copy,
                      .at = at,
                      .data_end = at,
                      .copy = std::nullopt,
                      .is_rival = false,
                      .remarks = {}};
  settled.remarks.push_back(
      {.code = "footer-before-end",
       .text = fmt::format(
           "the image ends with its footer at byte {}, {} bytes before the end of the file{}: "
           "taken for an image on a larger device",
           at, size - at - kFooterBytes,
           found.is_rival ? ", where another image's footer stands" : "")});
  return settled;
}

}  // namespace underlay::vhd
