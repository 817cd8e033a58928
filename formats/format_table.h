// The one table that names all formats, and the guess which of them a file is.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "formats/reader.h"

namespace underlay {

enum class ProbeVerdict : uint8_t {
  kNo,
  kDamaged,  // signs of this format, but not a whole one: not to be taken for raw unasked
  kYes,
};
struct ProbeResult {
  ProbeVerdict verdict = ProbeVerdict::kNo;
  std::string reason;  // kDamaged: what speaks for the format, and what is wrong
};
// The first and last bytes of a file.
struct ProbeInput {
  ByteSpan head;      // at most kHeadBytes
  ByteSpan tail;      // at most kTailBytes
  uint64_t size = 0;  // of the file
  static constexpr size_t kHeadBytes = 64 << 10;
  static constexpr size_t kTailBytes = 1536;
};

struct Format {
  std::string_view name;        // qemu's: what -f takes and messages say
  std::string_view alias = {};  // another name that -f takes, "" for none
  bool snapshots = false;       // may have internal ones: obeys ImageOptions::snapshot
  ProbeResult (*probe)(const ProbeInput&) = nullptr;
  // Takes a key of --image-opts that only images of this format have: false when `key` is none,
  // kUsage when the value is wrong. Null when the format has no such keys.
  Result<bool> (*set_option)(ImageOptions&, std::string_view key, std::string_view value) = nullptr;
  // An error without a file concerns the image.
  Result<std::unique_ptr<Reader>> (*open)(const ImageToOpen&) = nullptr;
  // The same through a library that is not ours; null when none reads this format.
  Result<std::unique_ptr<Reader>> (*open_by_library)(const ImageToOpen&) = nullptr;
};

inline constexpr std::string_view kRawFormat = "raw";  // the one that has no signs

std::span<const Format> formats();

// By name or alias; null when there is none.
const Format* find_format(std::string_view name);

// "raw, qcow2, vpc (vhd), ...": for messages.
std::string format_names();

// What a file is, by its bytes.
struct Guess {
  const Format* format = nullptr;  // null: of no format that has signs
  std::string damaged;             // then: why it may still be one of them, "" when nothing does
};
// Fails when the file cannot be read, or when two formats claim it.
Result<Guess> guess_format(const Source& source);

}  // namespace underlay
