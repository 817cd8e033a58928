#include "tools/thin/block_copier.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "io/unique_fd.h"
#include "tools/thin/bounded_suspend.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/fault_point.h"
#include "tools/thin/loop_device.h"
#include "tools/thin/origin.h"
#include "tools/thin/volume_device.h"

namespace underlay::thin {
namespace {

constexpr uint64_t kChunkBytes = 1 << 20;  // read and written at once
constexpr uint64_t kPage = 4096;

// Memory at a fixed address, shared: a fork leaves its pages where they are.
class Mapping {
 public:
  static Result<Mapping> make(int fd, uint64_t length) {
    const int flags = MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : MAP_NORESERVE);
    void* const at = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (at == MAP_FAILED) return fail_errno(errno, "cannot map {} bytes of memory", length);
    return Mapping(static_cast<std::byte*>(at), length);
  }
  Mapping(Mapping&& other) noexcept : at_(std::exchange(other.at_, nullptr)), size_(other.size_) {}
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (at_ != nullptr) ::munmap(at_, size_);
  }

  std::byte* data() const { return at_; }
  uint64_t size() const { return size_; }

 private:
  Mapping(std::byte* at, uint64_t size) : at_(at), size_(size) {}
  std::byte* at_;
  uint64_t size_;
};

Result<UniqueFd> open_direct(const std::string& path, int flags) {
  UniqueFd fd(::open(path.c_str(), flags | O_DIRECT | O_CLOEXEC));
  if (!fd.valid()) return in_file(fail_errno(errno, "cannot be opened"), path);
  return fd;
}

// All of it, or an error.
template <class Transfer>
Result<void> transfer_all(Transfer&& transfer, uint64_t offset, uint64_t length, const char* doing,
                          const std::string& path) {
  for (uint64_t done = 0; done < length;) {
    const ssize_t count = transfer(done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return in_file(fail_errno(errno, "{}", doing), path, offset + done);
    if (count == 0) {
      return in_file(fail(ErrorKind::kIo, "{}: the device ends here", doing), path, offset + done);
    }
    done += static_cast<uint64_t>(count);
  }
  return {};
}

Result<void> read_all(int fd, std::byte* to, uint64_t offset, uint64_t length,
                      const std::string& path) {
  const auto read = [&](uint64_t done) {
    return ::pread(fd, to + done, length - done, static_cast<off_t>(offset + done));
  };
  return transfer_all(read, offset, length, "reading", path);
}

Result<void> write_all(int fd, const std::byte* from, uint64_t offset, uint64_t length,
                       const std::string& path) {
  const auto write = [&](uint64_t done) {
    return ::pwrite(fd, from + done, length - done, static_cast<off_t>(offset + done));
  };
  return transfer_all(write, offset, length, "writing", path);
}

Result<uint64_t> logical_block(int fd, const std::string& path) {
  int size = 0;
  if (::ioctl(fd, BLKSSZGET, &size) != 0 || size <= 0) {
    return in_file(fail_errno(errno, "asking for its logical block size"), path);
  }
  return static_cast<uint64_t>(size);
}

// Memory that loop devices can be made of.
Result<UniqueFd> make_staging(uint64_t bytes) {
  UniqueFd fd(::memfd_create("underlay-hydrate", MFD_CLOEXEC));
  if (!fd.valid()) return fail_errno(errno, "cannot make a file in memory");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return fail_errno(errno, "cannot make a file of {} bytes in memory", bytes);
  }
  return fd;
}

// The device, and the size of its logical blocks in bytes.
Result<std::pair<UniqueFd, uint64_t>> open_with_unit(const std::string& path) {
  UniqueFd device = TRY(open_direct(path, O_RDWR));
  const uint64_t unit = TRY(logical_block(device.get(), path));
  return std::pair(std::move(device), unit);
}

}  // namespace

struct BlockCopier::State {
  VolumeRecord volume;
  uint64_t block_bytes;
  uint64_t image_bytes;
  uint64_t volume_bytes;  // that can be reached in whole logical blocks
  UniqueFd staging_file;
  Mapping staging;  // of image_bytes: at each offset what the origin has there, or nothing
  Mapping chunk;
  UniqueFd origin;
  UniqueFd device;
  BlockRuns staged;

  std::string device_path() const { return dm_path(hydrate_device_name(volume)); }
  uint64_t start(const MappedRun& run) const { return run.first_block * block_bytes; }
  uint64_t end(const MappedRun& run, uint64_t limit) const {
    return std::min((run.first_block + run.blocks) * block_bytes, limit);
  }

  Result<void> stage_run(const MappedRun& run);
  void add_nonzero(const MappedRun& run, BlockRuns& found) const;
  void drop_staged();
  Result<void> copy_run(const MappedRun& run) const;
};

// The pages are locked: one that went to a swap file on the suspended volume would never come back.
Result<void> BlockCopier::State::stage_run(const MappedRun& run) {
  const uint64_t from = start(run);
  const uint64_t to = end(run, image_bytes);
  if (from >= to) return {};
  const uint64_t first_page = from / kPage * kPage;
  if (::mlock(staging.data() + first_page, to - first_page) != 0) {
    return fail_errno(errno, "cannot keep {} bytes in memory", to - first_page);
  }
  return read_all(origin.get(), staging.data() + from, from, to - from,
                  dm_path(origin_name(volume.image)));
}

void BlockCopier::State::add_nonzero(const MappedRun& run, BlockRuns& found) const {
  for (uint64_t block = run.first_block; block < run.first_block + run.blocks; ++block) {
    const MappedRun one{.first_block = block, .blocks = 1};
    const uint64_t to = end(one, image_bytes);
    if (start(one) < to && !is_zero({staging.data() + start(one), to - start(one)})) {
      found.push_back(one);
    }
  }
}

void BlockCopier::State::drop_staged() {
  for (const MappedRun& run : staged) {
    const uint64_t from = start(run) / kPage * kPage;
    const uint64_t to = end(run, image_bytes);
    if (from >= to) continue;
    ::munlock(staging.data() + from, to - from);
    // When that fails, memory is used for longer.
    (void)::fallocate(staging_file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      static_cast<off_t>(from), static_cast<off_t>(to - from));
  }
  staged.clear();
}

Result<void> BlockCopier::State::copy_run(const MappedRun& run) const {
  const uint64_t last = end(run, volume_bytes);
  const std::string path = device_path();
  for (uint64_t at = start(run); at < last;) {
    const uint64_t length = std::min<uint64_t>(chunk.size(), last - at);
    TRY(read_all(device.get(), chunk.data(), at, length, path));
    TRY(write_all(device.get(), chunk.data(), at, length, path));
    at += length;
  }
  return {};
}

std::string hydrate_device_name(const VolumeRecord& volume) {
  return "underlay-hydrate-" + volume.name;
}

std::string hydrate_device_uuid(const VolumeRecord& volume) {
  const std::string prefix = std::string(kDmUuidPrefix) + "volume-";
  const bool usual = volume.uuid.starts_with(prefix);
  return std::string(kDmUuidPrefix) + "hydrate-" +
         (usual ? volume.uuid.substr(prefix.size()) : volume.uuid);
}

Result<void> remove_hydrate_device(const std::string& name) {
  const auto there = TRY(dm_info(name));
  if (!there) return {};
  if (there->open_count > 0) {
    return fail(ErrorKind::kUsage, "{} is in use: another process is hydrating the volume",
                dm_path(name));
  }
  return dm_remove(name);
}

BlockCopier::BlockCopier(std::unique_ptr<State> state) : state_(std::move(state)) {}
BlockCopier::BlockCopier(BlockCopier&&) noexcept = default;
BlockCopier::~BlockCopier() = default;

Result<BlockCopier> BlockCopier::open(const VolumeRecord& volume, const ImageRecord& image,
                                      uint64_t block_sectors) {
  const std::string name = hydrate_device_name(volume);
  TRY(remove_hydrate_device(name));
  const auto pool = TRY(dm_info(volume.pool));
  if (!pool) return fail(ErrorKind::kUsage, "its pool {} is not active", volume.pool);

  // What the program consists of stays in memory, too. The mapping that is made after this is
  // sparse and must not be filled.
  if (::mlockall(MCL_CURRENT) != 0) return fail_errno(errno, "cannot lock the program in memory");
  UniqueFd origin = TRY(open_direct(dm_path(origin_name(image.id)), O_RDONLY));
  UniqueFd file = TRY(make_staging(image.size));
  Mapping staging = TRY(Mapping::make(file.get(), image.size));
  Mapping chunk = TRY(Mapping::make(-1, kChunkBytes));
  if (::mlock(chunk.data(), chunk.size()) != 0) return fail_errno(errno, "cannot lock memory");
  const LoopDevice loop = TRY(open_loop_device(file.get(), name, /*read_only=*/true));
  TRY(dm_create({.name = name,
                 .uuid = hydrate_device_uuid(volume),
                 .targets = {thin_target(volume, pool->number(), loop.number)},
                 .read_only = false,
                 .internal = true}));
  auto opened = open_with_unit(dm_path(name));
  if (!opened) {
    (void)remove_hydrate_device(name);
    return Failure(std::move(opened).error());
  }
  auto& [device, unit] = *opened;
  const uint64_t bytes = volume.sectors * kSectorBytes;
  return BlockCopier(std::unique_ptr<State>(new State{.volume = volume,
                                                      .block_bytes = block_sectors * kSectorBytes,
                                                      .image_bytes = image.size,
                                                      .volume_bytes = bytes - bytes % unit,
                                                      .staging_file = std::move(file),
                                                      .staging = std::move(staging),
                                                      .chunk = std::move(chunk),
                                                      .origin = std::move(origin),
                                                      .device = std::move(device),
                                                      .staged = {}}));
}

Result<BlockRuns> BlockCopier::stage(const BlockRuns& batch) {
  state_->drop_staged();
  state_->staged = batch;
  BlockRuns found;
  for (const MappedRun& run : batch) {
    TRY(state_->stage_run(run));
    state_->add_nonzero(run, found);
  }
  return normalized(std::move(found));
}

Result<std::chrono::microseconds> BlockCopier::copy(const BlockRuns& blocks) {
  if (!TRY(is_active(state_->volume))) {
    return fail(ErrorKind::kUsage, "{} was deactivated meanwhile", state_->volume.name);
  }
  const auto begin = std::chrono::steady_clock::now();
  SuspendGuard guard = TRY(suspend_within(state_->volume.name, kSuspendLimit));
  fault_point("hydrate-suspended");
  for (const MappedRun& run : blocks) TRY(state_->copy_run(run));
  fault_point("hydrate-written");
  TRY(guard.resume());
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() -
                                                               begin);
}

Result<void> BlockCopier::sync() {
  if (::fsync(state_->device.get()) == 0) return {};
  return in_file(fail_errno(errno, "writing to disk"), state_->device_path());
}

Result<void> BlockCopier::close() {
  const std::string name = hydrate_device_name(state_->volume);
  state_.reset();
  return remove_hydrate_device(name);
}

}  // namespace underlay::thin
