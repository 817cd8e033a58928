// disk-dump: an image's guest-visible content, through the readers alone, without any server.
//   disk-dump [-f FORMAT] [-l SNAPSHOT] [--backing-format F] [--allow-path DIR]
//             [--parent CHILD=PATH] [--reader NAME] [--object SECRET] [--image-opts] IMAGE OUTPUT
// writes the disk to OUTPUT (sparse). Exit 0 done, 1 refused or a read failed.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cerrno>
#include <iostream>

#include "formats/open_chain.h"
#include "formats/options/chain_options.h"
#include "formats/options/image_opts.h"
#include "io/confined_open.h"
#include "io/unique_fd.h"

namespace underlay {
namespace {

namespace po = boost::program_options;

constexpr uint64_t kStep = 1 << 20;

Result<void> write_all(int fd, uint64_t offset, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0) return fail_errno(errno, "cannot write the output");
    bytes = bytes.subspan(static_cast<size_t>(put));
    offset += static_cast<uint64_t>(put);
  }
  return {};
}

Result<void> copy(const Disk& disk, const std::string& output) {
  const UniqueFd out(::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!out.valid()) return in_file(fail_errno(errno, "cannot create"), output);
  if (::ftruncate(out.get(), static_cast<off_t>(disk.size())) != 0) {
    return in_file(fail_errno(errno, "cannot set the size"), output);
  }
  std::vector<std::byte> buffer(kStep);
  for (uint64_t offset = 0; offset < disk.size(); offset += kStep) {
    const MutableByteSpan part(buffer.data(), std::min(kStep, disk.size() - offset));
    TRY(disk.read(offset, part));
    const auto zero = [](std::byte byte) { return byte == std::byte{0}; };
    if (std::all_of(part.begin(), part.end(), zero)) continue;
    TRY(write_all(out.get(), offset, part));
  }
  return {};
}

Result<void> run(const po::variables_map& given) {
  OpenOptions options;
  std::string path = given["image"].as<std::string>();
  if (given["image-opts"].as<bool>()) {
    std::vector<SecretFile> secrets;
    for (const std::string& object : given["object"].as<std::vector<std::string>>()) {
      secrets.push_back(TRY(parse_secret_object("--object", object)));
    }
    ImageOpts opts = TRY(parse_image_opts(path, secrets));
    options = std::move(opts.open);
    path = std::move(opts.path);
  } else {
    options.format = given["format"].as<std::string>();
  }
  if (given.count("backing-format") != 0) {
    options.backing_format = given["backing-format"].as<std::string>();
  }
  if (given.count("snapshot") != 0) options.image.snapshot = given["snapshot"].as<std::string>();
  for (const std::string& parent : given["parent"].as<std::vector<std::string>>()) {
    options.parents.push_back(TRY(parse_parent_path("--parent", parent)));
  }
  options.reader = TRY(parse_reader("--reader", given["reader"].as<std::string>()));
  const auto allowed = given["allow-path"].as<std::vector<std::string>>();
  const Confinement confinement = TRY(Confinement::create(allowed));
  Caches caches;
  const OpenedDisk opened = TRY(open_disk(path, options, confinement, caches));
  for (const std::string& warning : opened.warnings) std::cerr << "warning: " << warning << '\n';
  return copy(*opened.disk, given["output"].as<std::string>());
}

}  // namespace
}  // namespace underlay

int main(int argc, char** argv) {
  namespace po = underlay::po;
  using Names = std::vector<std::string>;
  po::options_description options;
  options.add_options()("format,f", po::value<std::string>()->default_value(""));
  options.add_options()("image-opts", po::bool_switch());
  options.add_options()("snapshot,l", po::value<std::string>());
  options.add_options()("backing-format", po::value<std::string>());
  options.add_options()("allow-path", po::value<Names>()->default_value(Names{}, ""));
  options.add_options()("parent", po::value<Names>()->default_value(Names{}, ""));
  options.add_options()("reader", po::value<std::string>()->default_value("own"));
  options.add_options()("object", po::value<Names>()->default_value(Names{}, ""));
  options.add_options()("image", po::value<std::string>()->required());
  options.add_options()("output", po::value<std::string>()->required());
  po::positional_options_description positional;
  positional.add("image", 1).add("output", 1);
  po::variables_map given;
  try {
    po::store(po::command_line_parser(argc, argv).options(options).positional(positional).run(),
              given);
    po::notify(given);
  } catch (const po::error& error) {
    std::cerr << "disk-dump: " << error.what() << '\n';
    return 2;
  }
  const auto result = underlay::run(given);
  if (!result) std::cerr << "disk-dump: " << result.error().to_string() << '\n';
  return result ? 0 : 1;
}
