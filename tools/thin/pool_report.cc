// pool list, pool status.
#include <nlohmann/json.hpp>

#include "tools/common/text.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/names.h"
#include "tools/thin/output.h"
#include "tools/thin/pool_commands.h"
#include "tools/thin/registry_store.h"
#include "tools/thin/thin_pool.h"

namespace underlay::thin {
namespace {

using Json = nlohmann::ordered_json;

struct PoolReport {
  PoolRecord record;
  std::optional<PoolStatus> status;  // of an active pool

  uint64_t block_size() const { return record.block_sectors * kSectorBytes; }
  uint64_t size() const { return status ? status->total_data * block_size() : 0; }
  uint64_t used() const { return status ? status->used_data * block_size() : 0; }
  std::string size_text() const { return status ? human_size(size()) : "-"; }
  std::string used_text() const { return status ? human_size(used()) : "-"; }
};

Result<PoolReport> report_on(const PoolRecord& pool) {
  PoolReport report{.record = pool, .status = std::nullopt};
  const auto info = TRY(dm_info(pool.name));
  if (info && info->uuid == pool.uuid && info->has_table) {
    report.status = TRY(pool_status(pool.name));
  }
  return report;
}

// null for what only an active pool tells.
Json known(const PoolReport& report, uint64_t value) {
  return report.status ? Json(value) : Json();
}

void add_basics(Json& object, const PoolReport& report) {
  object["name"] = report.record.name;
  object["active"] = report.status.has_value();
  object["data"] = report.record.data;
  object["metadata"] = report.record.metadata;
  object["block_size"] = report.block_size();
  object["size"] = known(report, report.size());
  object["used"] = known(report, report.used());
}

Json status_json(const PoolReport& report) {
  const PoolStatus status = report.status.value_or(PoolStatus{});
  Json object{{"version", 1}};
  add_basics(object, report);
  object["metadata_size"] = known(report, status.total_metadata * kMetadataBlock);
  object["metadata_used"] = known(report, status.used_metadata * kMetadataBlock);
  object["transaction_id"] = known(report, status.transaction_id);
  object["mode"] = report.status ? Json(status.mode) : Json();
  object["needs_check"] = report.status ? Json(status.needs_check) : Json();
  object["low_water"] = report.record.low_water_blocks * report.block_size();
  object["below_low_water"] = report.status ? Json(status.below_low_water()) : Json();
  object["discards"] = name_of(report.record.discards);
  return object;
}

// What is wrong with the pool, and the commands that help; "" = nothing.
std::string advice(const PoolReport& report) {
  const PoolRecord& pool = report.record;
  if (!report.status) {
    return pool.state == PoolState::kReady
               ? ""
               : "Only partly made or removed: 'underlay-thin pool remove " + pool.name +
                     "' clears it away.";
  }
  const PoolStatus& status = *report.status;
  if (status.mode == "out_of_data_space") {
    return fmt::format(
        "Full: writes wait for a minute, then fail. 'underlay-thin pool grow {}' makes it larger.",
        pool.name);
  }
  if (status.needs_check || status.mode != "rw") {
    return fmt::format(
        "The metadata is damaged, or its device is full or fails (dmesg says more). 'underlay-thin "
        "deactivate --all', then 'thin_check --clear-needs-check-flag {0}'; if that finds errors, "
        "'thin_repair -i {0} -o NEW' writes repaired metadata to another device or file.",
        pool.metadata);
  }
  if (status.below_low_water()) {
    return fmt::format("Below its low water mark. 'underlay-thin pool grow {}' makes it larger.",
                       pool.name);
  }
  return "";
}

void print_status(const PoolReport& report) {
  const PoolStatus status = report.status.value_or(PoolStatus{});
  const auto share = [](uint64_t used, uint64_t total) {
    return total == 0 ? 0.0 : 100.0 * static_cast<double>(used) / static_cast<double>(total);
  };
  std::vector<std::vector<std::string>> rows{{"pool", report.record.name},
                                             {"active", report.status ? "yes" : "no"},
                                             {"data", report.record.data},
                                             {"metadata", report.record.metadata},
                                             {"block size", human_size(report.block_size())},
                                             {"discards", name_of(report.record.discards)}};
  const std::string low = human_size(report.record.low_water_blocks * report.block_size());
  rows.push_back({"low water mark", low + " free"});
  if (report.status) {
    rows.push_back(
        {"data used", fmt::format("{} of {} ({:.1f} %)", report.used_text(), report.size_text(),
                                  share(status.used_data, status.total_data))});
    rows.push_back(
        {"metadata used",
         fmt::format("{} of {} ({:.1f} %)", human_size(status.used_metadata * kMetadataBlock),
                     human_size(status.total_metadata * kMetadataBlock),
                     share(status.used_metadata, status.total_metadata))});
    rows.push_back({"transaction id", std::to_string(status.transaction_id)});
    rows.push_back({"mode", status.mode});
    rows.push_back({"needs check", status.needs_check ? "yes" : "no"});
  }
  fmt::print("{}", aligned(rows));
  if (const std::string text = advice(report); !text.empty()) fmt::print("{}\n", text);
}

}  // namespace

Result<void> pool_list_command(const Host& host) {
  const Registry registry = TRY(read_registry(host.state_dir));
  Json pools = Json::array();
  std::vector<std::vector<std::string>> rows{
      {"NAME", "ACTIVE", "SIZE", "USED", "BLOCK", "DATA", "METADATA"}};
  for (const PoolRecord& pool : registry.pools) {
    const PoolReport report = TRY(report_on(pool));
    Json object = Json::object();
    add_basics(object, report);
    pools.push_back(std::move(object));
    rows.push_back({pool.name, report.status ? "yes" : "no", report.size_text(), report.used_text(),
                    human_size(report.block_size()), pool.data, pool.metadata});
  }
  if (host.json) {
    print_json({{"version", 1}, {"pools", std::move(pools)}});
  } else {
    fmt::print("{}", aligned(rows));
  }
  return {};
}

Result<void> pool_status_command(const Host& host, const PoolStatusArguments& arguments) {
  const Registry registry = TRY(read_registry(host.state_dir));
  const PoolRecord pool = TRY(find_pool(registry, arguments.name));
  const PoolReport report = TRY(report_on(pool));
  if (host.json) {
    print_json(status_json(report));
  } else {
    print_status(report);
  }
  return {};
}

}  // namespace underlay::thin
