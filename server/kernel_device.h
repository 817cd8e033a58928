// -c and -d: the kernel's nbd device as this server's client.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "io/error.h"
#include "io/kernel_nbd.h"
#include "io/unique_fd.h"
#include "server/options.h"

namespace underlay {

// -c: connections from the kernel to this process. The kernel's ends never leave the process
// before they are the kernel's, so nobody else can take their place.
class KernelDevice {
 public:
  // Finds the device, and makes the connections without a word on them. Fails early when the
  // kernel has no nbd, or the rights are missing.
  static Result<KernelDevice> prepare(const Options& options);

  // The server's ends: clients that have connected. Once.
  std::vector<UniqueFd> take_server_ends() { return std::move(server_ends_); }

  // Shakes hands with the server, which has to run on another thread, and makes the device of it.
  Result<void> connect();

  // Takes the device down, unless it is gone already or has become another's.
  Result<void> disconnect();

  const std::string& path() const { return path_; }

 private:
  KernelDevice(KernelNbd kernel, std::string path, unsigned index);

  KernelNbd kernel_;
  std::string path_;  // as it was given
  unsigned index_;
  std::string backend_;
  std::string export_name_;
  std::vector<UniqueFd> server_ends_;
  std::vector<UniqueFd> kernel_ends_;
};

// -d: as qemu-nbd, also when something stands on the device (`warnings` hears what), and without
// complaint when it is not connected.
Result<void> disconnect_device(const std::string& device, std::ostream& out,
                               std::ostream& warnings);

}  // namespace underlay
