// The folder of the cache, which any number of processes share: how many bytes it has, and who goes
// when they are too many.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "io/bytes.h"
#include "io/cache/file_lock.h"
#include "io/cache/group_layout.h"
#include "io/error.h"
#include "io/unique_fd.h"

namespace underlay {

// What the cache has of one object.
struct CachedObject {
  ObjectFacts facts;     // the id is "" when no header can be read
  std::string name;      // of its files
  uint64_t bytes = 0;    // on disk
  int64_t last_use = 0;  // seconds since 1970
};

struct CacheContents {
  uint64_t bytes = 0;                 // on disk, of all files
  std::vector<CachedObject> objects;  // the last used first
};

// Whose a new folder is to be, and with it all files in it.
struct CacheOwner {
  uid_t user = 0;
  gid_t group = 0;
};

// Thread-safe. The file "usage" in the folder holds how many bytes all files have, as far as it was
// told; what a crash makes of it is mended whenever the files are counted: by trim(), and when
// something is evicted.
class CacheDirectory {
 public:
  // Makes the folder if it is not there. In a folder that cannot be written to, is_writable() is
  // false. `limit`: bytes. `owner`: of a folder that is made. Whoever may write to it says what
  // images contain: kDenied unless that is this user, root or the owner, and nobody else.
  static Result<std::unique_ptr<CacheDirectory>> open(
      const std::string& path, uint64_t limit, std::optional<CacheOwner> owner = std::nullopt);

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }
  uint64_t limit() const { return limit_; }
  bool is_writable() const { return usage_.valid(); }

  struct Room {
    bool is_there = false;
    bool evicted = false;  // files that are open may be among what went
  };
  // Sets `bytes` aside for what the caller is about to write; evicts what was not used for longest
  // when the limit would be passed. May block, but does not wait for others for long: a client may
  // wait for the caller.
  Result<Room> make_room(uint64_t bytes);

  // Counts, and evicts until at most `bytes` are left; the bytes that are. Others may take room in
  // between. May block.
  Result<uint64_t> trim(uint64_t bytes);

  // Reads a header for each object. May block.
  Result<CacheContents> contents() const;

  // What is remembered of the first reads of an object (boot_record.h), without looking into it.
  // It outlives blocks, which are what it is needed for. kNotFound: nothing. May block.
  Result<std::vector<std::byte>> read_boot_file(const std::string& object) const;
  Result<void> write_boot_file(const std::string& object, ByteSpan bytes) const;
  static constexpr size_t kLargestBootFile = 512 << 10;

  // What is evicted beyond the need, so that counting is rare: an eighth of the limit.
  static constexpr uint64_t kSlackShare = 8;
  // Files that are evicted at once, while nobody else can take room.
  static constexpr size_t kEvictedAtOnce = 1024;

 private:
  struct File {
    std::string name;
    uint64_t bytes = 0;
    int64_t used_ns = 0;  // since 1970
    int64_t goes_ns = 0;  // the least goes first
  };
  CacheDirectory(UniqueFd fd, std::string path, uint64_t limit);
  Result<std::vector<File>> files() const;
  // The file "usage" is its owner's alone, of all threads and processes. FileLock does not keep
  // threads apart; a std::timed_mutex would, but ThreadSanitizer does not know its calls.
  struct GiveBack {
    void operator()(CacheDirectory* directory) const { directory->give_back_usage(); }
  };
  struct Usage {
    std::unique_ptr<CacheDirectory, GiveBack> thread;
    FileLock process;
  };
  void give_back_usage();
  Result<uint64_t> evict_to(uint64_t bytes);
  Result<Usage> lock_usage(std::chrono::milliseconds limit);
  Result<uint64_t> read_usage() const;
  Result<void> write_usage(uint64_t bytes) const;

  UniqueFd fd_;
  std::string path_;
  uint64_t limit_;
  std::mutex mutex_;
  std::condition_variable given_back_;
  bool is_taken_ = false;  // the file "usage", by a thread; under the mutex
  UniqueFd usage_;         // none: nothing may be written
};

}  // namespace underlay
