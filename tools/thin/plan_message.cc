#include "tools/thin/plan_message.h"

#include <fcntl.h>

#include <climits>

#include "formats/format_table.h"
#include "io/http/remote_name.h"
#include "tools/thin/file_stamp.h"
#include "tools/thin/message_fields.h"

namespace underlay::thin {
namespace {

using Kind = DirectRun::Kind;

constexpr uint64_t kMaxBytes = INT64_MAX;  // of disks and files: what the kernel counts to
constexpr size_t kMaxVersion = 16 << 10;
constexpr size_t kNumber = sizeof(uint64_t);

void write_run(FieldWriter& fields, const DirectRun& run) {
  fields.number(static_cast<uint64_t>(run.kind));
  fields.number(run.sectors);
  fields.number(run.file);
  fields.number(run.file_sector);
}

std::vector<FileStamp> read_files(FieldReader& fields) {
  std::vector<FileStamp> files(fields.count(4 * kNumber));
  for (FileStamp& file : files) {
    file.path = fields.text();
    file.size = fields.number();
    file.mtime_ns = static_cast<int64_t>(fields.number());
    file.version = fields.text();
  }
  return files;
}

// The runs' starts are not sent: each begins where the one before it ends.
Result<void> read_runs(FieldReader& fields, PlanMessage& message) {
  const uint64_t disk = message.size / Disk::kSectorBytes;
  uint64_t start = 0;
  for (size_t left = fields.count(4 * kNumber); left > 0; --left) {
    const uint64_t kind = fields.number();
    const uint64_t sectors = fields.number();
    const uint64_t file = fields.number();
    const uint64_t file_sector = fields.number();
    const bool in_file = kind == static_cast<uint64_t>(Kind::kFile);
    if (kind > static_cast<uint64_t>(Kind::kServer) || sectors == 0 || sectors > disk - start ||
        (in_file ? file >= message.descriptor_files.size() : file != 0 || file_sector != 0) ||
        !range_within(file_sector, sectors, kMaxBytes / Disk::kSectorBytes)) {
      return fail(ErrorKind::kMalformed, "answers a run that cannot be, at sector {}", start);
    }
    message.runs.push_back({.kind = static_cast<Kind>(kind),
                            .start = start,
                            .sectors = sectors,
                            .file = static_cast<unsigned>(file),
                            .file_sector = file_sector});
    start += sectors;
  }
  if (message.direct && start != disk) {
    return fail(ErrorKind::kMalformed, "answers runs of {} sectors for a disk of {}", start, disk);
  }
  return {};
}

Result<void> check_files(const PlanMessage& message) {
  if (message.files.empty()) return fail(ErrorKind::kMalformed, "answers no files");
  for (const FileStamp& file : message.files) {
    const bool is_place = file.is_object() ? is_remote_name(file.path) : file.path.starts_with('/');
    if (!is_place || file.version.size() >= kMaxVersion || file.path.size() >= PATH_MAX ||
        file.path.find('\0') != std::string::npos) {
      return fail(ErrorKind::kMalformed, "answers the file name \"{}\"", printable(file.path, 80));
    }
  }
  for (const size_t file : message.descriptor_files) {
    if (file >= message.files.size()) {
      return fail(ErrorKind::kMalformed, "answers file {} of {}", file, message.files.size());
    }
  }
  return {};
}

}  // namespace

std::string to_bytes(const PlanMessage& message) {
  FieldWriter fields;
  fields.text(message.format);
  fields.number(message.size);
  fields.number(message.files.size());
  for (const FileStamp& file : message.files) {
    fields.text(file.path);
    fields.number(file.size);
    fields.number(static_cast<uint64_t>(file.mtime_ns));
    fields.text(file.version);
  }
  fields.number(message.warnings.size());
  for (const std::string& warning : message.warnings) fields.text(warning);
  fields.text(message.reason);
  fields.number(message.direct ? 1 : 0);
  fields.number(message.descriptor_files.size());
  for (const size_t file : message.descriptor_files) fields.number(file);
  fields.number(message.runs.size());
  for (const DirectRun& run : message.runs) write_run(fields, run);
  return std::move(fields).take();
}

Result<PlanMessage> plan_message_of(const std::string& bytes) {
  FieldReader fields(bytes);
  PlanMessage message;
  message.format = fields.text();
  message.size = fields.number();
  message.files = read_files(fields);
  message.warnings.resize(fields.count(kNumber));
  for (std::string& warning : message.warnings) warning = fields.text();
  message.reason = fields.text();
  message.direct = fields.number() == 1;
  message.descriptor_files.resize(fields.count(kNumber));
  for (size_t& file : message.descriptor_files) file = fields.number();
  if (!fields.ok() || find_format(message.format) == nullptr || message.size > kMaxBytes ||
      !is_aligned(message.size, Disk::kSectorBytes)) {
    return fail(ErrorKind::kMalformed, "answers nonsense");
  }
  TRY(check_files(message));
  TRY(read_runs(fields, message));
  if (!fields.at_end()) return fail(ErrorKind::kMalformed, "answers nonsense");
  return message;
}

Result<void> check_descriptors(const PlanMessage& message, const std::vector<UniqueFd>& fds) {
  if (fds.size() != message.descriptor_files.size()) {
    return fail(ErrorKind::kMalformed, "answers {} files and sends {}",
                message.descriptor_files.size(), fds.size());
  }
  for (size_t i = 0; i < fds.size(); ++i) {
    const FileStamp& file = message.files[message.descriptor_files[i]];
    if (file.is_object()) return fail(ErrorKind::kMalformed, "sends an object as a file");
    const int flags = ::fcntl(fds[i].get(), F_GETFL);
    if (flags < 0 || (flags & (O_ACCMODE | O_PATH)) != O_RDONLY) {
      return in_file(fail(ErrorKind::kMalformed, "was not opened for reading only"), file.path);
    }
    const FileStamp stamp = TRY(stamp_of(fds[i].get(), file.path));
    if (stamp != file) {
      return in_file(fail(ErrorKind::kIo, "changed while it was read: try again"), file.path);
    }
  }
  for (const DirectRun& run : message.runs) {
    if (run.kind != DirectRun::Kind::kFile) continue;
    const FileStamp& file = message.files[message.descriptor_files[run.file]];
    if (!range_within(run.file_sector, run.sectors, file.size / Disk::kSectorBytes)) {
      return in_file(fail(ErrorKind::kMalformed, "was mapped beyond its end"), file.path);
    }
  }
  return {};
}

}  // namespace underlay::thin
