#include "tools/thin/thin_pool.h"

#include <cerrno>
#include <charconv>
#include <sstream>
#include <vector>

namespace underlay::thin {
namespace {

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(std::move(word));
  return words;
}

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct Share {
  uint64_t used = 0, total = 0;
};

// "16/2048"
std::optional<Share> share(const std::string& text) {
  const size_t slash = text.find('/');
  if (slash == std::string::npos) return std::nullopt;
  const auto used = number(std::string_view(text).substr(0, slash));
  const auto total = number(std::string_view(text).substr(slash + 1));
  if (!used || !total || *used > *total) return std::nullopt;
  return Share{.used = *used, .total = *total};
}

Failure unexpected(const char* target, const std::string& params) {
  return fail(ErrorKind::kMalformed, "the kernel's status of a {} target is not understood: '{}'",
              target, printable(params));
}

// What a target of type `type` says that is alone in its table.
Result<std::string> only_target(Result<std::vector<DmTarget>> targets, const std::string& name,
                                const char* type) {
  if (!targets) return Failure(std::move(targets).error());
  if (targets->size() != 1 || targets->front().type != type) {
    return fail(ErrorKind::kUsage, "{} is not a {} device", dm_path(name), type);
  }
  return std::move(targets->front().params);
}

// The table of a pool: "METADATA DATA BLOCK_SECTORS LOW_WATER_BLOCKS ...".
Result<uint64_t> low_water_of(const std::string& pool) {
  const std::string params = TRY(only_target(dm_table(pool), pool, "thin-pool"));
  const auto words = words_of(params);
  const auto blocks = words.size() < 4 ? std::nullopt : number(words[3]);
  if (!blocks) return unexpected("thin-pool", params);
  return *blocks;
}

Result<void> send(const std::string& pool, const std::string& message) {
  auto sent = dm_message(pool, message);
  if (sent) return {};
  Error error = std::move(sent).error();
  if (error.sys_errno == EOPNOTSUPP) {
    error.message += fmt::format(
        "; the pool is read-only or has failed, 'underlay-thin pool status {}' says more", pool);
  }
  return Failure(std::move(error));
}

}  // namespace

Result<PoolStatus> parse_pool_status(const std::string& params) {
  const auto words = words_of(params);
  PoolStatus status;
  if (words.size() == 1 && (words[0] == "Fail" || words[0] == "Error")) {
    status.mode = "fail";
    status.needs_check = true;
    return status;
  }
  if (words.size() < 8) return unexpected("thin-pool", params);
  const auto transaction = number(words[0]);
  const auto metadata = share(words[1]);
  const auto data = share(words[2]);
  const bool root_is_known = words[3] == "-" || number(words[3]);
  const bool mode_is_known =
      words[4] == "rw" || words[4] == "ro" || words[4] == "out_of_data_space";
  const bool check_is_known = words[7] == "-" || words[7] == "needs_check";
  if (!transaction || !metadata || !data || !root_is_known || !mode_is_known || !check_is_known) {
    return unexpected("thin-pool", params);
  }
  status.transaction_id = *transaction;
  status.used_metadata = metadata->used;
  status.total_metadata = metadata->total;
  status.used_data = data->used;
  status.total_data = data->total;
  status.has_metadata_snapshot = words[3] != "-";
  status.mode = words[4];
  status.needs_check = words[7] == "needs_check";
  return status;
}

Result<PoolStatus> pool_status(const std::string& pool) {
  const std::string params = TRY(only_target(dm_status(pool, /*wait=*/false), pool, "thin-pool"));
  PoolStatus status = TRY(parse_pool_status(params));
  status.low_water_blocks = TRY(low_water_of(pool));
  return status;
}

Result<ThinStatus> parse_thin_status(const std::string& params) {
  const auto words = words_of(params);
  ThinStatus status;
  if (words.size() == 1 && (words[0] == "Fail" || words[0] == "Error")) {
    status.failed = true;
    return status;
  }
  if (words.size() == 1 && words[0] == "-") return status;  // not yet started
  const auto mapped = words.empty() ? std::nullopt : number(words[0]);
  if (words.size() != 2 || !mapped) return unexpected("thin", params);
  status.mapped_sectors = *mapped;
  status.highest_sector = number(words[1]);
  if (words[1] != "-" && !status.highest_sector) return unexpected("thin", params);
  return status;
}

Result<ThinStatus> thin_status(const std::string& volume) {
  return parse_thin_status(TRY(only_target(dm_status(volume, /*wait=*/false), volume, "thin")));
}

// Never skip_block_zeroing: the rest of a block that a guest writes in part would show what another
// guest had there. Without error_if_no_space, a full pool holds writes for a minute before it fails
// them: time to make it larger.
DmTarget pool_target(const PoolRecord& pool, const std::string& metadata_number,
                     const std::string& data_number, uint64_t data_sectors) {
  // A discarded block would show the origin's bytes again, so discards are ignored unless asked
  // for. Then they go on to the data device where that takes them (the kernel looks).
  const char* const features = pool.discards == Discards::kIgnore ? " 1 ignore_discard" : "";
  return {.start = 0,
          .sectors = data_sectors,
          .type = "thin-pool",
          .params = fmt::format("{} {} {} {}{}", metadata_number, data_number, pool.block_sectors,
                                pool.low_water_blocks, features)};
}

DmTarget thin_target(const VolumeRecord& volume, const std::string& pool_number,
                     const std::string& origin) {
  std::string params = fmt::format("{} {}", pool_number, volume.thin_id);
  if (!origin.empty()) params += " " + origin;
  return {.start = 0, .sectors = volume.sectors, .type = "thin", .params = std::move(params)};
}

Result<void> pool_create_thin(const std::string& pool, uint32_t thin_id) {
  return send(pool, fmt::format("create_thin {}", thin_id));
}

Result<void> pool_create_snapshot(const std::string& pool, uint32_t thin_id, uint32_t source) {
  return send(pool, fmt::format("create_snap {} {}", thin_id, source));
}

Result<void> pool_delete(const std::string& pool, uint32_t thin_id) {
  auto deleted = send(pool, fmt::format("delete {}", thin_id));
  if (!deleted && deleted.error().sys_errno == ENODATA) {
    return fail(ErrorKind::kNotFound, "pool '{}' has no thin volume with the id {}", pool, thin_id);
  }
  return deleted;
}

Result<void> pool_set_transaction(const std::string& pool, uint64_t from, uint64_t to) {
  return send(pool, fmt::format("set_transaction_id {} {}", from, to));
}

std::string message_words(const std::string& pool, const std::string& message) {
  return fmt::format("dmsetup message {} 0 '{}'", pool, message);
}

}  // namespace underlay::thin
