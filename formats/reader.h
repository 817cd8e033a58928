// A reader maps an image: guest offset -> extent. One implementation for each format.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/block_cache.h"
#include "formats/dirty_bitmap.h"
#include "formats/encryption/secret.h"
#include "formats/extent.h"
#include "io/confined_open.h"
#include "io/source.h"

namespace underlay {

// What the operator (or, of a parent, its child) asked of an image, beyond its name.
struct ImageOptions {
  std::optional<std::string> snapshot;  // -l, for parse_snapshot_choice()
  // kLargest: of a parent, whose child's size decides; a smaller one would hide stored data.
  enum class VhdSize : uint8_t { kByCreator, kChs, kCurrentSize, kLargest };
  VhdSize vhd_size = VhdSize::kByCreator;  // qemu's force_size_calc
  std::string encrypt_format;              // qemu's encrypt.format, "" when not stated
  std::string key_secret;                  // qemu's encrypt.key-secret: an id, "" for none
  std::optional<SecretFile> key;           // the secret of that id
};

// How an image names its parent (backing file, differencing parent). Everything in it is text of
// the image: not trusted.
struct ParentLink {
  std::vector<std::string> names;     // to be tried in this order; none: the operator must say
  std::optional<std::string> format;  // as format_table.h names it; nullopt: the image does not say
  std::string identity;               // what identity() of the parent must be; "" when not stated
  std::string other_identity{};       // another that will do, "" for none
  std::string revision{};             // what revision() of it should be; "" when not stated
  ImageOptions options{};             // that the parent is to be opened with
};

// Thread-safe after it was opened: every method is const and may be called from any thread. The
// image is immutable. Bytes of the image never lead to an assert, an unbounded allocation or a
// read outside the buffers; they lead to an Error.
class Reader {
 public:
  Reader() = default;
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  virtual ~Reader() = default;

  // Guest-visible size in bytes, as the image states it; any number.
  virtual uint64_t size() const = 0;

  // Bytes of what the image maps one by one (cluster, block, grain); 0 when it is one piece.
  virtual uint64_t cluster_size() const { return 0; }

  // What lies at `offset`, and for how long the same goes on: one extent that starts at `offset`,
  // with 0 < extent.length <= length. Longer runs are better, but one table slice a call is enough.
  // kStatus is the same as kRead here: looking for holes of the file system is Disk's.
  // REQUIRES: length > 0, offset + length <= size().
  // Fails with kWouldBlock under MapFor::kReadNow when metadata is not in memory; with kMalformed
  // or kTruncated when the metadata is wrong or the stored bytes lie beyond the end of their file.
  // Never takes a failure for kZero or kParent.
  virtual Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const = 0;

  // Loads the cluster of a kCompressed or kCopied extent that this reader's map() returned: fills
  // all of `out`, which has extent.cluster_length bytes, or fails. May block. Readers whose format
  // does not compress keep this default, which is never called.
  virtual Result<void> load_cluster(const Extent& extent, MutableByteSpan out) const;

  // nullopt when the image has no parent (kParent extents then are zeros).
  virtual std::optional<ParentLink> parent() const { return std::nullopt; }

  // What children call this image (VHD unique id, VMDK CID), "" when the format has no such thing.
  virtual std::string identity() const { return ""; }

  // What changes with the content of this image and children remember, where the format has it
  // beside identity() (VDI uuid_last_snap). Writers do not enforce it: a parent with another one is
  // warned of.
  virtual std::string revision() const { return ""; }

  // The image's dirty bitmap of that name, null when it has none. May block. Readers whose format
  // has no such thing keep this default.
  virtual Result<std::unique_ptr<const DirtyBitmap>> dirty_bitmap(std::string_view name) const;

  // Every file the reader reads from; they live as long as the reader.
  virtual std::vector<const Source*> sources() const = 0;

  // The image as another reader of its format must be given it: its file, unless what this reader
  // reads differs from that (a log was replayed in memory). Lives as long as the reader.
  virtual const Source& image_source() const { return *sources().front(); }
};

// What a reader is opened with. The references outlive the call; `caches` outlives the reader.
struct ImageToOpen {
  std::shared_ptr<const Source> source;
  std::string path;  // for messages, and where names in the image start
  const NamedFiles& files;
  Caches& caches;
  const ImageOptions& options;
  std::vector<std::string>& warnings;  // one line each, without the path, for the operator
};

}  // namespace underlay
