// create, snapshot, remove.
#pragma once

#include <optional>
#include <string>

#include "io/error.h"
#include "tools/thin/host.h"
#include "tools/thin/image_choice.h"

namespace underlay::thin {

struct CreateArguments {
  std::string name;
  std::string pool;
  std::optional<uint64_t> size;  // bytes; nullopt: the image's
  ImageArguments image;
};
// Makes the volume and brings it up; the command says so as well.
Result<void> make_volume(const Host& host, const CreateArguments& arguments);
Result<void> create_command(const Host& host, const CreateArguments& arguments);

struct SnapshotArguments {
  std::string source;
  std::string name;
};
// The same of a snapshot.
Result<void> make_snapshot(const Host& host, const SnapshotArguments& arguments);
Result<void> snapshot_command(const Host& host, const SnapshotArguments& arguments);

struct RemoveArguments {
  std::string name;
};
Result<void> remove_command(const Host& host, const RemoveArguments& arguments);

}  // namespace underlay::thin
