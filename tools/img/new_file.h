// A file that is there in full, or not at all.
#pragma once

#include <memory>
#include <string>

#include "io/bytes.h"
#include "io/error.h"
#include "io/unique_fd.h"

namespace underlay::img {

// Written under another name beside the wanted one until it is committed; gone when it never is.
// Used by one thread.
class NewFile {
 public:
  enum class Existing : uint8_t { kKeep, kReplace };
  // kKeep: fails when `path` exists, now or in commit(). kReplace: it must be a regular file, whose
  // permissions the new one gets, and its owner and group where the process may give it to them;
  // where it may not give it to the group, no group is allowed anything.
  static Result<NewFile> create(const std::string& path, Existing existing);
  ~NewFile();
  NewFile(NewFile&& other) noexcept;
  NewFile& operator=(NewFile&&) = delete;

  Result<void> write_at(uint64_t offset, ByteSpan bytes);
  // Writes `bytes` so many times, one behind the other.
  Result<void> write_copies(uint64_t offset, ByteSpan bytes, uint64_t count);
  // Bytes that were not written are zeros.
  Result<void> resize(uint64_t size);
  // Gives the file its name, kOnDisk: when all is on the disk. Fails with EINTR when
  // is_interrupted(). Nothing is to be called afterwards.
  enum class Durability : uint8_t { kOnDisk, kInMemory };
  Result<void> commit(Durability durability = Durability::kOnDisk);

 private:
  NewFile(std::string path, std::string written_path, UniqueFd fd, Existing existing);
  bool take_name();
  Failure failed(int error, std::string_view what) const;

  std::string path_;
  std::string written_path_;  // "" when it has its name
  UniqueFd fd_;
  Existing existing_;
};

}  // namespace underlay::img
