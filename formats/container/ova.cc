#include "formats/container/ova.h"

#include <algorithm>
#include <array>

#include "formats/container/ovf_descriptor.h"

namespace underlay::ova {
namespace {

using tar::Member;

constexpr size_t kMaxNamesInMessage = 20;
constexpr std::array<std::string_view, 7> kDiskEndings = {".vmdk",  ".vhd",  ".vhdx", ".vdi",
                                                          ".qcow2", ".qcow", ".img"};

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

bool looks_like_disk(const std::string& name) {
  const std::string lower = lower_case(name);
  return std::any_of(kDiskEndings.begin(), kDiskEndings.end(),
                     [&](std::string_view ending) { return lower.ends_with(ending); });
}

Failure several(const Source& archive, const std::vector<std::string>& names) {
  std::string list;
  for (size_t i = 0; i < names.size() && i < kMaxNamesInMessage; ++i) {
    list += fmt::format("{}{}", i == 0 ? "" : ", ", printable(names[i], 200));
  }
  if (names.size() > kMaxNamesInMessage) list += ", ...";
  return in_file(fail(ErrorKind::kUsage, "is an archive of {} disks ({}); say which one as {}#{}",
                      names.size(), list, printable(archive.name()), printable(names.front(), 200)),
                 archive.name());
}

Result<std::vector<ovf::DiskFile>> read_descriptor(const Source& archive, const Member& member) {
  if (member.sparse || member.size > ovf::kMaxDescriptorBytes) {
    return fail(ErrorKind::kLimit, "the OVF descriptor of {} bytes is sparse or longer than {}",
                member.size, ovf::kMaxDescriptorBytes);
  }
  std::vector<std::byte> bytes(static_cast<size_t>(member.size));
  TRY(archive.read_at(member.offset, bytes));
  return ovf::parse_disks(bytes);
}

Result<Member> disk_of_descriptor(const Source& archive, const std::vector<Member>& members,
                                  const Member& descriptor) {
  auto disks = read_descriptor(archive, descriptor);
  if (!disks) return in_file(std::move(disks).error(), archive.name());
  if (disks->empty()) {
    return in_file(fail(ErrorKind::kMalformed, "its OVF descriptor names no disk"), archive.name());
  }
  if (disks->size() > 1) {
    std::vector<std::string> names;
    for (const ovf::DiskFile& disk : *disks) names.push_back(disk.href);
    return several(archive, names);
  }
  if (disks->front().chunked) {
    return in_file(
        fail(ErrorKind::kUnsupported, "its disk \"{}\" is cut into chunks; join them with cat",
             printable(disks->front().href, 200)),
        archive.name());
  }
  const std::string& href = disks->front().href;
  auto disk = find_member(archive, members, href.starts_with("./") ? href.substr(2) : href);
  // It is not the image that the operator named that is missing.
  if (!disk && disk.error().kind == ErrorKind::kNotFound) disk.error().kind = ErrorKind::kMalformed;
  return disk;
}

}  // namespace

Result<Member> find_member(const Source& archive, const std::vector<Member>& members,
                           std::string_view name) {
  const Member* found = nullptr;
  for (const Member& member : members) {
    if (member.name != name) continue;
    if (found != nullptr) {
      return in_file(fail(ErrorKind::kNotFound,
                          "is an archive with several members \"{}\": which is meant is not known",
                          printable(name, 200)),
                     archive.name());
    }
    found = &member;
  }
  if (found == nullptr) {
    return in_file(
        fail(ErrorKind::kNotFound, "is an archive without a member \"{}\"", printable(name, 200)),
        archive.name());
  }
  if (found->sparse) {
    return in_file(fail(ErrorKind::kUnsupported,
                        "its member \"{}\" is a sparse one, whose bytes do not lie in the archive "
                        "as they are: unpack it with tar -xSf",
                        printable(name, 200)),
                   archive.name());
  }
  return *found;
}

Result<Member> choose_disk(const Source& archive, const std::vector<Member>& members) {
  const auto descriptor = std::find_if(members.begin(), members.end(), [](const Member& member) {
    return lower_case(member.name).ends_with(".ovf");
  });
  if (descriptor != members.end()) return disk_of_descriptor(archive, members, *descriptor);
  std::vector<std::string> names;
  for (const Member& member : members) {
    if (looks_like_disk(member.name)) names.push_back(member.name);
  }
  if (names.size() > 1) return several(archive, names);
  if (names.empty()) {
    return in_file(
        fail(ErrorKind::kUnsupported,
             "is a tar archive without an OVF descriptor and without a member that is called as "
             "disk images are; FILE#MEMBER serves any other, and -f raw the archive as it is"),
        archive.name());
  }
  return find_member(archive, members, names.front());
}

}  // namespace underlay::ova
