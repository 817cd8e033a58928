#include "tools/img/digest.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/img/digest_tree.h"
#include "tools/img/disk_walk.h"
#include "tools/img/hasher.h"
#include "tools/img/image_argument.h"
#include "tools/img/say.h"

namespace underlay::img {
namespace {

std::vector<Option> options() {
  static const std::string names = hash_algorithm_names();
  std::vector<Option> all = image_options();
  const std::vector<Option> own = {
      snapshot_option(),
      {.rule = {.name = "algorithm", .takes_value = true}, .value_name = "NAME", .help = names},
      {.rule = {.name = "check", .takes_value = true},
       .value_name = "HEX",
       .help = "compare with this digest, and exit with status 1 when it is another"},
      {.rule = {.name = "tree", .takes_value = true},
       .value_name = "TREE",
       .help =
           "write a tree of digests (dm-verity's) to the new file TREE, and print its root hash"},
      {.rule = {.name = "overwrite"}, .help = "with --tree: TREE may exist, and is replaced"},
      {.rule = {.name = "salt", .takes_value = true},
       .value_name = "HEX",
       .help = "with --tree: hashed before each block (default: nothing)"},
      {.rule = {.name = "data-block-size", .takes_value = true},
       .value_name = "BYTES",
       .help =
           "with --tree: bytes of the disk that have a digest (default: 4096; without --verify, "
           "less where that does not divide the disk)"},
      {.rule = {.name = "hash-block-size", .takes_value = true},
       .value_name = "BYTES",
       .help = "with --tree: bytes of the tree that have a digest (default: 4096)"},
      {.rule = {.name = "verify"},
       .help = "with --tree, --root-hash and --data-blocks: verify the disk against TREE"},
      {.rule = {.name = "root-hash", .takes_value = true},
       .value_name = "HEX",
       .help = "with --verify: the tree's root hash"},
      {.rule = {.name = "data-blocks", .takes_value = true},
       .value_name = "N",
       .help = "with --verify: how many blocks the disk has, for which the root hash does not "
               "stand"},
      output_option(),
      progress_option(),
      quiet_option(),
  };
  all.insert(all.end(), own.begin(), own.end());
  return all;
}

// A line of sha256sum's about a file, "BEFORE NAME BEHIND": where the name has a backslash or ends
// lines, they are escaped, and the whole line begins with a backslash. Other bytes that are not for
// terminals are escaped as everywhere here.
void print_sum_line(std::string_view before, const std::string& name, std::string_view behind) {
  std::string escaped;
  for (const char c : name) {
    if (c == '\\') {
      escaped += "\\\\";
    } else if (c == '\n' || c == '\r') {
      escaped += c == '\n' ? "\\n" : "\\r";
    } else {
      escaped += c;
    }
  }
  fmt::print("{}{}{}{}\n", escaped == name ? "" : "\\", before, printable(escaped), behind);
}

Result<ShortBytes> digest_of(const Disk& disk, const HashAlgorithm& algorithm,
                             const WalkManners& manners, WalkCounts& counts) {
  Hasher hasher = TRY(Hasher::create(algorithm));
  TRY(hasher.begin());
  TRY(walk_disk(disk, {}, manners, counts, [&](const DiskPart& part) {
    return part.is_zero() ? hasher.update_zeros(part.length) : hasher.update(part.bytes);
  }));
  return hasher.finish();
}

Result<int> run_digest(const Given& given, const ImageArgument& image,
                       const HashAlgorithm& algorithm) {
  const OutputFormat output = TRY(output_format(given));
  std::optional<ShortBytes> expected;
  if (given.has("check")) expected = TRY(digest_argument(given, "check", algorithm));
  const bool quiet = given.has("quiet");
  Caches caches;
  const auto disk = TRY(open_image(image, caches, quiet));
  WalkCounts counts;
  const ShortBytes digest = TRY(digest_of(*disk, algorithm, walk_manners(given, "hashed"), counts));
  const bool differs = expected && digest != *expected;
  if (quiet) return differs ? kFailed : kDone;
  if (output == OutputFormat::kJson) {
    nlohmann::ordered_json document{{"version", kJsonVersion},      {"filename", image.path},
                                    {"algorithm", algorithm.name},  {"digest", digest.to_hex()},
                                    {"virtual-size", disk->size()}, {"bytes-hashed", counts.done},
                                    {"bytes-read", counts.stored}};
    if (expected) document["matches"] = !differs;
    print_json(document);
    return differs ? kFailed : kDone;
  }
  if (expected) {
    print_sum_line("", image.path, differs ? ": FAILED" : ": OK");
  } else {
    print_sum_line(digest.to_hex() + "  ", image.path, "");
  }
  return differs ? kFailed : kDone;
}

Result<void> check_companions(const Given& given) {
  struct Rule {
    std::string_view option, needs;
  };
  constexpr std::array kNeeded{
      Rule{"overwrite", "tree"},       Rule{"salt", "tree"},
      Rule{"data-block-size", "tree"}, Rule{"hash-block-size", "tree"},
      Rule{"verify", "tree"},          Rule{"verify", "root-hash"},
      Rule{"root-hash", "verify"},     Rule{"verify", "data-blocks"},
      Rule{"data-blocks", "verify"},
  };
  for (const Rule& rule : kNeeded) {
    if (given.has(rule.option) && !given.has(rule.needs)) {
      return fail(ErrorKind::kUsage, "--{} goes with --{}", rule.option, rule.needs);
    }
  }
  if (given.has("tree") && given.has("check")) {
    return fail(ErrorKind::kUsage, "--check is of a digest: with --tree, say --verify");
  }
  for (const std::string_view option : {"overwrite", "salt", "algorithm"}) {
    if (given.has("verify") && given.has(option)) {
      return fail(ErrorKind::kUsage, "--{} is not for --verify, which takes it from the tree",
                  option);
    }
  }
  return {};
}

Result<int> run(const Given& given) {
  TRY(check_companions(given));
  const std::string name = given.last_or("algorithm", kDefaultHash);
  const HashAlgorithm* const algorithm = find_hash_algorithm(name);
  if (algorithm == nullptr) {
    return fail(ErrorKind::kUsage, "--algorithm {}: must be {}", printable(name, 80),
                hash_algorithm_names());
  }
  ImageArgument image = TRY(image_argument(given, given.operands()[0]));
  choose_snapshot(given, image);
  if (given.has("verify")) return verify_tree(given, image);
  if (given.has("tree")) return write_tree(given, image, *algorithm);
  return run_digest(given, image, *algorithm);
}

}  // namespace

Command digest_command() {
  return {.name = "digest",
          .operands = "FILE",
          .summary = "compute the checksum of what a guest sees, or a tree of them",
          .options = options,
          .notes = "Exit status: 0 done, 1 failed, or what was compared or verified differs.\n",
          .run = run};
}

}  // namespace underlay::img
