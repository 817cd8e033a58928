#include "tools/img/audit_content.h"

#include <fmt/format.h>

#include <array>
#include <string_view>

#include "formats/format_table.h"

namespace underlay::img {
namespace {

using namespace std::literals;

// Bytes that a file has when it is something else.
struct Sign {
  std::string_view what;
  size_t offset;
  std::string_view bytes;
};

// Disk images that are not served. Without their format being told apart, they are taken for raw.
constexpr std::array kForeignImages = {
    Sign{"a QED image", 0, "QED\0"sv},
    Sign{"a Parallels image", 0, "WithoutFreeSpace"sv},
    Sign{"a Parallels image", 0, "WithouFreSpacExt"sv},
    Sign{"a Bochs image", 0, "Bochs Virtual HD Image"sv},
    Sign{"a cloop image", 0, "#!/bin/sh\n#V2.0 Format\n"sv},
    Sign{"an Expert Witness image", 0, "EVF\x09\x0d\x0a\xff\0"sv},
    Sign{"a Windows imaging (WIM) file", 0, "MSWIM\0\0\0"sv},
    Sign{"an Android sparse image", 0, "\x3a\xff\x26\xed"sv},
    Sign{"a Partclone image", 0, "partclone-image"sv},
    Sign{"a LUKS volume, encrypted as a whole", 0, "LUKS\xba\xbe"sv},
};

// What holds other files, or is to be run or shown.
constexpr std::array kOtherFiles = {
    Sign{"a gzip file", 0, "\x1f\x8b\x08"sv},
    Sign{"an xz file", 0,
         "\xfd"
         "7zXZ\0"sv},
    Sign{"a zstd file", 0, "\x28\xb5\x2f\xfd"sv},
    Sign{"a bzip2 file", 0, "BZh"sv},
    Sign{"an lz4 file", 0, "\x04\x22\x4d\x18"sv},
    Sign{"a 7z archive", 0, "7z\xbc\xaf\x27\x1c"sv},
    Sign{"a zip archive", 0, "PK\x03\x04"sv},
    Sign{"a rar archive", 0, "Rar!\x1a\x07"sv},
    Sign{"a cpio archive", 0, "07070"sv},
    Sign{"a tar archive", 257, "ustar"sv},
    Sign{"an ELF program", 0,
         "\x7f"
         "ELF"sv},
    Sign{"a PDF document", 0, "%PDF-"sv},
    Sign{"an ISO 9660 file system", 0x8001, "CD001"sv},
    Sign{"a UDF file system", 0x8001, "NSR0"sv},
    Sign{"a GUID partition table", 512, "EFI PART"sv},
    Sign{"a boot sector", 510, "\x55\xaa"sv},
};

// Of the last sector.
constexpr Sign kAppleTrailer{"an Apple disk image", 0, "koly"sv};

bool has_sign(ByteSpan bytes, const Sign& sign) {
  return bytes.size() >= sign.offset + sign.bytes.size() &&
         as_text(bytes).substr(sign.offset, sign.bytes.size()) == sign.bytes;
}

class ContentAudit {
 public:
  ContentAudit(const LoneImage& image, bool is_stated, AuditReport& report)
      : source_(*image.file.source),
        format_(*image.format),
        is_stated_(is_stated),
        report_(report) {}

  Result<void> run() {
    const uint64_t size = source_.size();
    head_.resize(static_cast<size_t>(std::min<uint64_t>(size, ProbeInput::kHeadBytes)));
    tail_.resize(static_cast<size_t>(std::min<uint64_t>(size, ProbeInput::kTailBytes)));
    TRY(source_.read_at(0, head_));
    TRY(source_.read_at(size - tail_.size(), tail_));
    look_for_second_format();
    look_for_foreign_images();
    if (begins_with_guest_data()) {
      look_at_boot_sector();
    } else {
      look_for_polyglots();
    }
    return {};
  }

 private:
  bool is_raw() const { return format_.name == kRawFormat; }

  // A fixed vhd is one that begins with no copy of its footer.
  bool begins_with_guest_data() const {
    return is_raw() || (format_.name == "vpc" && !as_text(head_).starts_with("conectix"));
  }

  // The versions of one format, which begin alike.
  bool is_a_version_of(const Format& other) const {
    return format_.name.starts_with("qcow") && other.name.starts_with("qcow");
  }

  void look_for_second_format() {
    const ProbeInput input{.head = head_, .tail = tail_, .size = source_.size()};
    for (const Format& other : formats()) {
      if (other.name == format_.name || other.name == kRawFormat || is_a_version_of(other))
        continue;
      const ProbeResult found = other.probe(input);
      if (found.verdict == ProbeVerdict::kYes) {
        report_.warn(
            "second-format",
            fmt::format("is an image of format {} as well: programs that guess may take it "
                        "for that",
                        other.name));
      } else if (found.verdict == ProbeVerdict::kDamaged) {
        report_.warn("second-format-signs",
                     fmt::format("has signs of the format {}: {}", other.name, found.reason));
      }
    }
  }

  void look_for_foreign_images() {
    for (const Sign& sign : kForeignImages) {
      if (has_sign(head_, sign)) foreign_image(sign);
    }
    const size_t sector = std::min<size_t>(512, tail_.size());
    if (has_sign(ByteSpan(tail_).last(sector), kAppleTrailer)) foreign_image(kAppleTrailer);
  }

  void foreign_image(const Sign& sign) {
    const std::string message =
        fmt::format("looks like {}, which is not served: as {} its bytes are not the disk",
                    sign.what, format_.name);
    // Who says that it is raw may mean it: a disk of a guest's that holds such a thing.
    if (is_raw() && !is_stated_) {
      report_.refuse("foreign-format", message, sign.offset);
    } else {
      report_.warn("foreign-format", message, sign.offset);
    }
  }

  // In the metadata at the start of an image none of these can be by chance.
  void look_for_polyglots() {
    for (const Sign& sign : kOtherFiles) {
      if (!has_sign(head_, sign)) continue;
      report_.warn("polyglot",
                   fmt::format("has the signs of {} as well: other programs may take it for that",
                               sign.what),
                   sign.offset);
    }
  }

  // What a guest would boot from, or a file that somebody forgot to unpack.
  void look_at_boot_sector() {
    for (const Sign& sign : kOtherFiles) {
      const bool is_container = sign.offset <= 257 && sign.bytes.size() >= 3;
      if (is_container && has_sign(head_, sign)) {
        report_.warn("no-disk", fmt::format("looks like {}, not like a disk", sign.what),
                     sign.offset);
      }
    }
    if (head_.size() >= 512 && load_le<uint16_t>(head_, 510) == 0xaa55 && !is_fat()) {
      look_at_partitions();
    }
  }

  // A FAT file system begins with a boot sector, too.
  bool is_fat() const {
    return load_le<uint8_t>(head_, 0x10) == 2 && load_le<uint8_t>(head_, 0x15) == 0xf8;
  }

  // The partition table of a master boot record: four entries {u8 boot flag, u8 start CHS[3],
  // u8 type, u8 end CHS[3], u32 first sector, u32 sectors}.
  void look_at_partitions() {
    size_t used = 0;
    bool protective = false;
    bool right = true;
    for (size_t at = 446; at < 510; at += 16) {
      const auto flag = load_le<uint8_t>(head_, at);
      const auto type = load_le<uint8_t>(head_, at + 4);
      if (flag != 0 && flag != 0x80) right = false;
      if (type != 0) ++used;
      if (type != 0xee) continue;
      protective = true;
      if (load_le<uint32_t>(head_, at + 8) != 1) right = false;
    }
    if (!right) {
      report_.warn("partition-table",
                   "the partition table in its first sector has fields that no partition can have",
                   446);
    } else if (protective && used > 1) {
      report_.warn("partition-table",
                   "its first sector has partitions beside the one that protects a GUID partition "
                   "table: programs differ in which partitions they show",
                   446);
    }
  }

  const Source& source_;
  const Format& format_;
  bool is_stated_;
  AuditReport& report_;
  std::vector<std::byte> head_;
  std::vector<std::byte> tail_;
};

struct Ending {
  std::string_view ending;
  std::string_view format;
};

constexpr std::array kEndings = {
    Ending{".qcow2", "qcow2"}, Ending{".qcow", "qcow"}, Ending{".vhd", "vpc"},
    Ending{".vhdx", "vhdx"},   Ending{".vmdk", "vmdk"}, Ending{".vdi", "vdi"},
    Ending{".raw", "raw"},     Ending{".iso", "raw"},
};

}  // namespace

Result<void> audit_content(const LoneImage& image, bool is_stated, AuditReport& report) {
  return ContentAudit(image, is_stated, report).run();
}

void audit_file_name(const LoneImage& image, AuditReport& report) {
  std::string name = image.file.path.substr(image.file.path.find_last_of("/#") + 1);
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  for (const std::string_view packed : {".xz", ".zst", ".zstd"}) {
    if (name.ends_with(packed)) name.resize(name.size() - packed.size());
  }
  for (const Ending& ending : kEndings) {
    if (!name.ends_with(ending.ending) || ending.format == image.format->name) continue;
    report.warn("file-name",
                fmt::format("its name ends as that of a {} image, but it is read as {}",
                            ending.format, image.format->name));
  }
}

}  // namespace underlay::img
