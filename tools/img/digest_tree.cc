#include "tools/img/digest_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "formats/guid.h"
#include "io/file_source.h"
#include "tools/img/broken_pipe.h"
#include "tools/img/disk_walk.h"
#include "tools/img/hash_tree_verifier.h"
#include "tools/img/hash_tree_writer.h"
#include "tools/img/image_files.h"
#include "tools/img/qemu_size.h"
#include "tools/img/say.h"
#include "tools/img/tree_report.h"

namespace underlay::img {
namespace {

constexpr uint32_t kUsualBlock = 4096;  // the most that kernels with 4 KiB pages take

Result<uint32_t> block_size(std::string_view option, const std::string& text) {
  const uint64_t bytes = TRY(parse_qemu_size(fmt::format("--{}", option), text));
  if (is_hashed_block_size(bytes)) return static_cast<uint32_t>(bytes);
  return fail(ErrorKind::kUsage, "--{} {}: must be a power of two from {} to {}", option, bytes,
              kSmallestHashedBlock, kLargestHashedBlock);
}

// The largest that divides the disk, unless another one is asked for.
Result<uint32_t> data_block_size(const Given& given, uint64_t disk_size) {
  if (!given.has("data-block-size")) {
    uint32_t size = kUsualBlock;
    while (!is_aligned(disk_size, size)) size /= 2;  // disks are whole sectors
    return size;
  }
  const uint32_t size = TRY(block_size("data-block-size", given.last("data-block-size")));
  if (is_aligned(disk_size, size)) return size;
  return fail(ErrorKind::kUsage,
              "--data-block-size {}: the disk has {} bytes, which is no multiple, and what lies "
              "behind the last block would have no digest",
              size, disk_size);
}

Result<uint32_t> stated_block_size(const Given& given, std::string_view option) {
  if (!given.has(option)) return kUsualBlock;
  return block_size(option, given.last(option));
}

Result<HashTreeSuperblock> new_superblock(const Given& given, const HashAlgorithm& algorithm,
                                          uint64_t disk_size) {
  if (disk_size == 0) {
    return fail(ErrorKind::kUsage, "the disk has no bytes, and so there is no tree of it");
  }
  HashTreeSuperblock superblock;
  superblock.algorithm = algorithm;
  superblock.data_block_size = TRY(data_block_size(given, disk_size));
  superblock.hash_block_size = TRY(stated_block_size(given, "hash-block-size"));
  superblock.data_blocks = disk_size / superblock.data_block_size;
  const auto salt = ShortBytes::from_hex(given.last("salt"));
  if (!salt) {
    return fail(ErrorKind::kUsage, "--salt: must be at most {} bytes as hexadecimal digits",
                ShortBytes::kCapacity);
  }
  superblock.salt = *salt;
  return superblock;
}

ReadSettings hashing_settings(const HashTreeSuperblock& superblock, DataHasher& hasher) {
  ReadSettings settings;
  settings.unit = std::max<uint64_t>(settings.unit, superblock.data_block_size);
  settings.work = [&hasher](unsigned thread, const DiskPart& part,
                            std::vector<std::byte>& digests) {
    return hasher.hash(thread, part.bytes, digests);
  };
  return settings;
}

// What --verify is to be given.
std::string pin_of(const HashTreeSuperblock& superblock, const ShortBytes& root) {
  std::string pin = fmt::format("--data-blocks {}", superblock.data_blocks);
  if (superblock.data_block_size != kUsualBlock) {
    pin += fmt::format(" --data-block-size {}", superblock.data_block_size);
  }
  if (superblock.hash_block_size != kUsualBlock) {
    pin += fmt::format(" --hash-block-size {}", superblock.hash_block_size);
  }
  return pin + " --root-hash " + root.to_hex();
}

// What the superblock says of sizes has no digest: of a disk of other blocks, or of a part of a
// tree, the root hash may be the same. (Nor has the salt, but with it blocks of given sizes have no
// other digest.)
Result<void> check_pinned_sizes(const Given& given, const HashTreeSuperblock& superblock) {
  const auto check = [](std::string_view option, uint64_t pinned, uint64_t found) -> Result<void> {
    if (pinned == found) return {};
    return fail(ErrorKind::kMalformed, "is the tree of another disk: it states {} as --{}, not {}",
                found, option, pinned);
  };
  const uint64_t blocks = TRY(parse_qemu_size("--data-blocks", given.last("data-blocks")));
  TRY(check("data-blocks", blocks, superblock.data_blocks));
  for (const auto& [option, found] : {std::pair{"data-block-size", superblock.data_block_size},
                                      std::pair{"hash-block-size", superblock.hash_block_size}}) {
    const uint32_t pinned = TRY(stated_block_size(given, option));
    TRY(check(option, pinned, found));
  }
  return {};
}

void print_tree(const Given& given, OutputFormat output, const ImageArgument& image,
                const HashTreeSuperblock& superblock, const HashTreeLayout& layout,
                const ShortBytes& root, const WalkCounts& counts) {
  const std::string uuid = to_text(superblock.uuid, GuidOrder::kBigEndian);
  if (output == OutputFormat::kJson) {
    print_json({{"version", kJsonVersion},
                {"filename", image.path},
                {"tree", given.last("tree")},
                {"root-hash", root.to_hex()},
                {"algorithm", superblock.algorithm.name},
                {"salt", superblock.salt.to_hex()},
                {"uuid", uuid},
                {"data-blocks", superblock.data_blocks},
                {"data-block-size", superblock.data_block_size},
                {"hash-block-size", superblock.hash_block_size},
                {"virtual-size", counts.done},
                {"tree-size", layout.end},
                {"bytes-hashed", counts.done},
                {"bytes-read", counts.stored}});
    return;
  }
  fmt::print(
      "tree: {} ({} bytes)\ndata blocks: {} of {} bytes\nhash blocks: of {} bytes\n"
      "algorithm: {}\nsalt: {}\nroot hash: {}\npin: {}\n",
      printable(given.last("tree")), layout.end, superblock.data_blocks, superblock.data_block_size,
      superblock.hash_block_size, superblock.algorithm.name,
      superblock.salt.size() == 0 ? "-" : superblock.salt.to_hex(), root.to_hex(),
      pin_of(superblock, root));
}

struct OpenedTree {
  std::shared_ptr<const Source> file;
  HashTreeSuperblock superblock;
  HashTreeLayout layout;
};

Result<OpenedTree> open_tree(const Given& given, uint64_t disk_size) {
  const std::string path = given.last("tree");
  OpenedTree tree;
  tree.file = TRY(open_file_source(path));
  const auto parsed = [&]() -> Result<void> {
    std::array<std::byte, HashTreeSuperblock::kBytes> bytes;
    TRY(tree.file->read_at(0, bytes));
    tree.superblock = TRY(parse_hash_tree_superblock(bytes));
    const HashTreeSuperblock& superblock = tree.superblock;
    TRY(check_pinned_sizes(given, superblock));
    if (disk_size % superblock.data_block_size != 0 ||
        disk_size / superblock.data_block_size != superblock.data_blocks) {
      return fail(ErrorKind::kMalformed,
                  "is the tree of another disk: of {} blocks of {} bytes, and this one has {} "
                  "bytes",
                  superblock.data_blocks, superblock.data_block_size, disk_size);
    }
    tree.layout = TRY(HashTreeLayout::of(superblock));
    if (tree.layout.end <= tree.file->size()) return {};
    return fail(ErrorKind::kTruncated, "has {} bytes, and a tree of {} blocks has {}",
                tree.file->size(), superblock.data_blocks, tree.layout.end);
  }();
  if (!parsed) return in_file(parsed.error(), path);
  return tree;
}

Result<void> verify_blocks(const Disk& disk, const OpenedTree& tree, const ShortBytes& root,
                           const WalkManners& manners, WalkCounts& counts, TreeReport& report) {
  const HashTreeSuperblock& superblock = tree.superblock;
  const ZeroTree zeros = TRY(ZeroTree::of(superblock, tree.layout));
  const ReadSettings defaults;
  DataHasher hasher = TRY(DataHasher::create(superblock, zeros.data_digest, defaults.threads));
  HashTreeVerifier verifier =
      TRY(HashTreeVerifier::create(*tree.file, superblock, tree.layout, zeros, root,
                                   [&](const TreeDamage& damage) { report.add(damage); }));
  const ShortBytes found = TRY(verifier.root_of_tree());
  if (found != root) {
    return in_file(fail(ErrorKind::kMalformed, "its root hash is {}, and not {}", found.to_hex(),
                        root.to_hex()),
                   tree.file->name());
  }
  auto walked = walk_disk(disk, hashing_settings(superblock, hasher), manners, counts,
                          [&](const DiskPart& part) {
                            if (!part.is_zero()) return verifier.check(part.product);
                            return verifier.check_zeros(part.length / superblock.data_block_size);
                          });
  verifier.finish();
  if (walked) walked = tree.file->check_unchanged();
  return walked;
}

}  // namespace

Result<ShortBytes> digest_argument(const Given& given, std::string_view option,
                                   const HashAlgorithm& algorithm) {
  const auto digest = ShortBytes::from_hex(given.last(option));
  if (digest && digest->size() == algorithm.bytes) return *digest;
  return fail(ErrorKind::kUsage, "--{}: a digest of {} is {} hexadecimal digits, not \"{}\"",
              option, algorithm.name, 2 * algorithm.bytes, printable(given.last(option), 200));
}

Result<int> write_tree(const Given& given, const ImageArgument& image,
                       const HashAlgorithm& algorithm) {
  const OutputFormat output = TRY(output_format(given));
  const std::string path = given.last("tree");
  Caches caches;
  const auto disk = TRY(open_image(image, caches, given.has("quiet")));
  const HashTreeSuperblock superblock = TRY(new_superblock(given, algorithm, disk->size()));
  const HashTreeLayout layout = TRY(HashTreeLayout::of(superblock));
  const ZeroTree zeros = TRY(ZeroTree::of(superblock, layout));
  const bool overwrite = given.has("overwrite");
  if (overwrite) TRY(check_may_be_replaced(path, *disk));
  std::optional<BrokenPipeAsError> while_unfinished(std::in_place);
  NewFile file = TRY(
      NewFile::create(path, overwrite ? NewFile::Existing::kReplace : NewFile::Existing::kKeep));
  HashTreeWriter writer = TRY(HashTreeWriter::create(superblock, layout, zeros, file));
  const ReadSettings defaults;
  DataHasher hasher = TRY(DataHasher::create(superblock, zeros.data_digest, defaults.threads));
  WalkCounts counts;
  TRY(walk_disk(*disk, hashing_settings(superblock, hasher), walk_manners(given, "hashed"), counts,
                [&](const DiskPart& part) {
                  if (!part.is_zero()) return writer.add(part.product);
                  return writer.add_zeros(part.length / superblock.data_block_size);
                }));
  const ShortBytes root = TRY(writer.finish());
  TRY(file.commit());
  while_unfinished.reset();
  if (!given.has("quiet")) {
    print_tree(given, output, image, writer.superblock(), layout, root, counts);
  }
  return kDone;
}

Result<int> verify_tree(const Given& given, const ImageArgument& image) {
  const OutputFormat output = TRY(output_format(given));
  const std::string path = given.last("tree");
  const bool quiet = given.has("quiet");
  Caches caches;
  const auto disk = TRY(open_image(image, caches, quiet));
  const OpenedTree tree = TRY(open_tree(given, disk->size()));
  const ShortBytes root = TRY(digest_argument(given, "root-hash", tree.superblock.algorithm));
  TreeReport report(quiet ? std::nullopt : std::optional(output), image.path, path);
  report.begin(tree.superblock, root);
  WalkCounts counts;
  const auto verified =
      verify_blocks(*disk, tree, root, walk_manners(given, "verified"), counts, report);
  report.end(counts, verified ? nullptr : &verified.error());
  if (!verified) return Failure(verified.error());
  return report.is_clean() ? kDone : kFailed;
}

}  // namespace underlay::img
