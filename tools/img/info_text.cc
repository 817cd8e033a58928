#include "tools/img/info_text.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "tools/img/finding_json.h"
#include "tools/img/qemu_size.h"
#include "tools/img/say.h"

namespace underlay::img {
namespace {

using Json = nlohmann::ordered_json;

std::string local_date(uint32_t seconds) {
  const std::time_t time = seconds;
  std::tm parts{};
  if (::localtime_r(&time, &parts) == nullptr) return "-";
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", parts);
}

std::string clock_text(uint64_t nanoseconds) {
  const uint64_t seconds = nanoseconds / 1'000'000'000;
  return fmt::format("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60,
                     nanoseconds / 1'000'000 % 1000);
}

std::string snapshot_lines(const std::vector<SnapshotFacts>& snapshots) {
  if (snapshots.empty()) return "";
  std::string lines = fmt::format("Snapshot list:\n{:<10}{:<17}{:>8}{:>20}{:>13}{:>11}\n", "ID",
                                  "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
  for (const SnapshotFacts& each : snapshots) {
    lines += fmt::format("{:<9} {:<16} {:>8}{:>20}{:>13}{:>11}\n", printable(each.id),
                         printable(each.name), qemu_size(each.vm_state_size),
                         local_date(each.date_sec), clock_text(each.vm_clock_nsec),
                         each.icount ? std::to_string(*each.icount) : "");
  }
  return lines;
}

std::string scalar_text(const Json& value) {
  return printable(value.is_string() ? value.get<std::string>() : json_in_one_line(value));
}

// An object's or array's parts, a line each; what is in them is further to the right.
std::string nested_lines(const Json& parts, size_t depth) {
  std::string lines;
  size_t index = 0;
  for (const auto& part : parts.items()) {
    std::string key = parts.is_array() ? fmt::format("[{}]", index++) : printable(part.key());
    if (parts.is_object()) std::replace(key.begin(), key.end(), '-', ' ');
    lines += std::string(depth * 4, ' ') + key;
    if (part.value().is_structured()) {
      lines += ":\n" + nested_lines(part.value(), depth + 1);
    } else {
      lines += ": " + scalar_text(part.value()) + '\n';
    }
  }
  return lines;
}

std::string backing_lines(const ImageInfo& info) {
  const ImageFacts& facts = info.facts;
  if (facts.backing_filename.empty()) return "";
  std::string lines = "backing file: " + printable(facts.backing_filename);
  if (info.full_backing_filename != facts.backing_filename) {
    lines += fmt::format(" (actual path: {})", printable(info.full_backing_filename));
  }
  lines += '\n';
  if (!facts.backing_filename_format.empty()) {
    lines += fmt::format("backing file format: {}\n", printable(facts.backing_filename_format));
  }
  return lines;
}

std::string qemus_lines(const ImageInfo& info) {
  const ImageFacts& facts = info.facts;
  std::string lines = fmt::format(
      "image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\ndisk size: {}\n",
      printable(info.filename), info.format, qemu_size(facts.virtual_size), facts.virtual_size,
      info.actual_size ? qemu_size(*info.actual_size) : "unavailable");
  if (facts.encrypted) lines += "encrypted: yes\n";
  if (facts.cluster_size) lines += fmt::format("cluster_size: {}\n", *facts.cluster_size);
  if (facts.dirty) lines += "cleanly shut down: no\n";
  lines += backing_lines(info);
  lines += snapshot_lines(facts.snapshots);
  if (!facts.specific.is_null()) {
    lines += "Format specific information:\n" + nested_lines(facts.specific, 1);
  }
  return lines;
}

std::string name_line(const NameInImage& name) {
  std::string line = fmt::format("    {}: {}", name.role, printable(name.name));
  if (!name.format.empty()) line += fmt::format(" ({})", printable(name.format));
  return line + (name.followed ? "\n" : ", not followed\n");
}

std::string container_line(const ImageContainer& container) {
  std::string line = "container: " + printable(container.filename);
  if (!container.member.empty()) line += ", member " + printable(container.member);
  return line + (container.compressed ? ", compressed\n" : "\n");
}

std::string our_lines(const ImageInfo& info) {
  const ImageFacts& facts = info.facts;
  std::string lines;
  if (info.container) lines += container_line(*info.container);
  if (!facts.creator.empty()) lines += fmt::format("creator: {}\n", printable(facts.creator));
  if (!facts.identity.empty()) lines += fmt::format("identity: {}\n", printable(facts.identity));
  if (!facts.names.empty()) lines += "Files that the image names:\n";
  for (const NameInImage& each : facts.names) lines += name_line(each);
  if (!facts.findings.empty()) lines += "Findings:\n";
  for (const Finding& each : facts.findings) {
    lines += fmt::format("    {}: {}\n", kind_name(each.kind), printable(each.message));
  }
  return lines;
}

}  // namespace

std::string info_text(const ImageInfo& info) { return qemus_lines(info) + our_lines(info); }

}  // namespace underlay::img
