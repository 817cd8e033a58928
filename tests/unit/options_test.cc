// The command line of underlay-nbd: every option, in its short and long form.
#include "server/options.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "formats/format_table.h"
#include "server/option_rules.h"
#include "server/usage.h"
#include "tests/support/parsed_options.h"

namespace underlay {
namespace {

using test::check_refused;
using test::parsed;
using test::Words;

void check_usage_error(const Words& words, const std::string& part_of_message) {
  check_refused(words, ErrorKind::kUsage, part_of_message);
}

// A configuration file that lives as long as this.
class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text) {
    char name[] = "/tmp/underlay-config-XXXXXX";
    const int fd = ::mkstemp(name);
    REQUIRE(fd >= 0);
    ::close(fd);
    path_ = name;
    std::ofstream(path_) << text;
  }
  ~ConfigFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

TEST_CASE("options: --help-limits names each budget in a line of at most 100 columns") {
  const auto line = parse_command_line({"--help-limits"});
  REQUIRE(line.has_value());
  CHECK(line->action == CommandLine::Action::kPrintAndExit);
  for (const char* what : {"clients at the same time (-e)             4096", "open files",
                           "images in a chain                         256",
                           "extents in a reply to block status        8192",
                           "unpacked clusters in memory               64 MiB"}) {
    CAPTURE(what);
    CHECK(line->text.find(what) != std::string::npos);
  }
  for (size_t start = 0; start < line->text.size();) {
    const size_t end = line->text.find('\n', start);
    CHECK(end - start <= 100);
    start = end + 1;
  }
}

TEST_CASE("options: the defaults are qemu-nbd's") {
  const Options options = parsed({"disk.img"});
  REQUIRE(options.exports.size() == 1);
  CHECK(options.exports[0].name == "");
  CHECK(options.exports[0].path == "disk.img");
  CHECK(options.exports[0].open.format == "");
  CHECK_FALSE(options.exports[0].open.image.snapshot.has_value());
  CHECK(options.bind_address == "0.0.0.0");
  CHECK(options.port == "10809");
  CHECK(options.socket_path == "");
  CHECK_FALSE(options.address_given);
  CHECK(options.max_clients == 1);
  CHECK_FALSE(options.persistent);
  CHECK_FALSE(options.fork);
  CHECK_FALSE(options.verbose);
  CHECK_FALSE(options.allocation_depth);
  CHECK(options.offset == 0);
  CHECK(options.description == "");
  CHECK(options.pid_file == "");
  CHECK(options.caches.clusters == 64ull << 20);
  CHECK(options.caches.tables == 32ull << 20);
  CHECK(options.threads == 0);
  CHECK(options.poll == std::chrono::microseconds(0));
  CHECK(options.on_error == OnError::kEio);
}

TEST_CASE("options: short and long forms mean the same") {
  const Words shorts = {"-r", "-p",  "1",  "-b", "::1", "-k", "/s", "-e",
                        "5",  "-t",  "-x", "n",  "-D",  "d",  "-o", "512",
                        "-f", "raw", "-n", "-l", "s1",  "-A", "-v", "FILE"};
  const Words longs = {"--read-only",
                       "--port=1",
                       "--bind",
                       "::1",
                       "--socket=/s",
                       "--shared",
                       "5",
                       "--persistent",
                       "--export-name=n",
                       "--description=d",
                       "--offset=512",
                       "--format=raw",
                       "--nocache",
                       "--load-snapshot",
                       "s1",
                       "--allocation-depth",
                       "--verbose",
                       "FILE"};
  for (const Words& words : {shorts, longs}) {
    const Options options = parsed(words);
    CHECK(options.port == "1");
    CHECK(options.bind_address == "::1");
    CHECK(options.socket_path == "/s");
    CHECK(options.address_given);
    CHECK(options.max_clients == 5);
    CHECK(options.persistent);
    CHECK(options.description == "d");
    CHECK(options.offset == 512);
    CHECK(options.allocation_depth);
    CHECK(options.verbose);
    REQUIRE(options.exports.size() == 1);
    CHECK(options.exports[0].name == "n");
    CHECK(options.exports[0].path == "FILE");
    CHECK(options.exports[0].open.format == "raw");
    CHECK(options.exports[0].open.image.snapshot == "s1");
  }
}

TEST_CASE("options: long-only options") {
  const Options options =
      parsed({"--fork", "--pid-file=/p", "--allow-path", "/a", "--allow-path=/b", "--threads=3",
              "--cluster-cache=2G", "--table-cache", "1024K", "--poll=50", "--on-error=hold",
              "--log=journal", "--reader=libyal", "--parent=c=/p", "--parent", "/d=e=f", "FILE"});
  CHECK(options.fork);
  CHECK(options.pid_file == "/p");
  CHECK(options.allow_paths == Words{"/a", "/b"});
  CHECK(options.threads == 3);
  CHECK(options.reader == ReaderChoice::kLibyal);
  REQUIRE(options.parents.size() == 2);
  CHECK(options.parents[0].child == "c");
  CHECK(options.parents[0].path == "/p");
  CHECK(options.parents[1].child == "/d");
  CHECK(options.parents[1].path == "e=f");
  CHECK(options.poll == std::chrono::microseconds(50));
  CHECK(options.on_error == OnError::kHold);
  CHECK(options.log == LogTarget::kJournal);
  CHECK(options.caches.clusters == 2ull << 30);
  CHECK(options.caches.tables == 1ull << 20);
}

TEST_CASE("options: an image may be an NBD export, which is raw unless -f says otherwise") {
  CHECK(parsed({"nbd://host/name"}).exports[0].path == "nbd://host/name");
  CHECK(parsed({"nbd://host/name"}).exports[0].open.format == "raw");
  CHECK(parsed({"-f", "qcow2", "--export", "a=nbd+unix:///b?socket=/c"}).exports[0].open.format ==
        "qcow2");
  CHECK(parsed({"FILE"}).exports[0].open.format == "");
}

TEST_CASE("options: the cache of images on servers") {
  CHECK(parsed({"FILE"}).cache_dir.empty());
  const Options options = parsed({"--cache-dir=/c", "--cache-size=3G", "--cache-immutable", "a*",
                                  "--cache-immutable=b", "FILE"});
  CHECK(options.cache_dir == "/c");
  CHECK(options.cache_size == 3ull << 30);
  CHECK(options.cache_immutable == Words{"a*", "b"});
  CHECK(parsed({"--cache-dir=/c", "--prefetch=boot", "FILE"}).prefetch == PrefetchWhat::kBoot);
  CHECK(parsed({"--cache-dir=/c", "--prefetch=all", "--prefetch-rate=8M", "F"}).prefetch_rate ==
        8 << 20);
  check_refused({"--cache-dir=/c", "--prefetch=some", "FILE"}, ErrorKind::kUsage, "some");
  check_refused({"--prefetch=all", "FILE"}, ErrorKind::kUsage, "--cache-dir DIR");
  check_refused({"--cache-size=3G", "FILE"}, ErrorKind::kUsage, "--cache-dir DIR");
  check_refused({"--cache-immutable=x", "FILE"}, ErrorKind::kUsage, "--cache-dir DIR");
  check_refused({"--cache-dir=", "FILE"}, ErrorKind::kUsage, "name is empty");
  check_refused({"--cache-dir=/c", "--cache-size=1M", "FILE"}, ErrorKind::kUsage, "from 16M");
}

TEST_CASE("options: words are split as getopt_long splits them") {
  CHECK(parsed({"-rt", "F"}).persistent);
  CHECK(parsed({"-rtfqcow2", "F"}).exports[0].open.format == "qcow2");
  CHECK(parsed({"-f=raw", "F"}).exports[0].open.format == "=raw");
  CHECK(parsed({"--persist", "F"}).persistent);
  CHECK(parsed({"--sh=7", "F"}).max_clients == 7);
  CHECK(parsed({"F", "-t"}).persistent);
  CHECK(parsed({"-t", "--", "-F"}).exports[0].path == "-F");
  CHECK(parsed({"-D", "-t", "F"}).description == "-t");
  CHECK_FALSE(parsed({"-D", "-t", "F"}).persistent);
  CHECK(parsed({"--export-name=", "F"}).exports[0].name == "");
  CHECK(parsed({"-x", "", "F"}).exports[0].name == "");
  CHECK(parsed({"-x", "a", "-x", "b", "F"}).exports[0].name == "b");
  CHECK(parsed({"-f", "qcow2", "-f", "raw", "F"}).exports[0].open.format == "raw");
  CHECK(parsed({"-t", "-t", "F"}).persistent);
}

TEST_CASE("options: abbreviations of qemu-nbd's options stay unique beside our own") {
  CHECK(parsed({"--all", "F"}).allocation_depth);
  CHECK(parsed({"--exp=n", "F"}).exports[0].name == "n");
  check_usage_error({"--thr=2", "F"}, "unrecognized option '--thr'");
}

TEST_CASE("options: what is no option is a usage error") {
  check_usage_error({"--nope", "F"}, "unrecognized option '--nope'");
  check_usage_error({"-y", "F"}, "invalid option -- 'y'");
  check_usage_error({"-ry", "F"}, "invalid option -- 'y'");
  check_usage_error({"--s=2", "F"}, "option '--s' is ambiguous; possibilities: '--socket'");
  check_usage_error({"--fork=1", "F"}, "option '--fork' doesn't allow an argument");
  check_usage_error({"F", "-k"}, "option requires an argument -- 'k'");
  check_usage_error({"F", "--socket"}, "option '--socket' requires an argument");
  check_usage_error({"F", "--FILE=x"}, "unrecognized option");
}

TEST_CASE("options: exactly one FILE, unless other exports are named") {
  check_usage_error({}, "Invalid number of arguments");
  check_usage_error({"a", "b"}, "Invalid number of arguments");
  check_usage_error({"--export", "x=a", "b", "c"}, "Invalid number of arguments");
  CHECK(parsed({"--directory=d"}).directory == "d");
  CHECK(parsed({"--export", "x=a"}).exports.size() == 1);
  check_usage_error({"--directory="}, "empty");
  check_usage_error({""}, "empty");
  check_usage_error({"-x", "n", "--export", "x=a"}, "-x names the export of FILE");
  check_usage_error({"-f", "raw", "--directory", "d"}, "--format is about FILE");
}

TEST_CASE("options: -p takes a port or a service") {
  CHECK(parsed({"-p", "65535", "F"}).port == "65535");
  CHECK(parsed({"-p", "nbd", "F"}).port == "nbd");
  for (const char* port : {"0", "65536", "", "99999999999999999999"}) {
    check_usage_error({"-p", port, "F"}, "-p: \"" + std::string(port) + "\" is no port");
  }
}

TEST_CASE("options: -e counts clients, 0 has no limit") {
  CHECK(parsed({"-e", "0", "F"}).max_clients == 0);
  CHECK(parsed({"-e", "0x10", "F"}).max_clients == 16);
  CHECK(parsed({"-e", "2147483647", "F"}).max_clients == 2147483647);
  for (const char* number : {"-1", "x", "", "2147483648", "1x", "99999999999999999999", "1K"}) {
    check_usage_error({"-e", number, "F"}, "-e:");
  }
}

TEST_CASE("options: -o takes bytes as qemu-nbd reads numbers, without suffixes") {
  CHECK(parsed({"-o", "0x200", "F"}).offset == 512);
  CHECK(parsed({"-o", "01000", "F"}).offset == 512);
  CHECK(parsed({"-o", "9223372036854775807", "F"}).offset == 9223372036854775807u);
  for (const char* number : {"1K", "1.5", "-1", "", "0x", "9223372036854775808", "512b", "08"}) {
    check_usage_error({"-o", number, "F"}, "-o:");
  }
}

TEST_CASE("options: -k wants an absolute path, and wins over -b and -p") {
  check_usage_error({"-k", "rel.sock", "F"}, "must be absolute");
  check_usage_error({"-k", "", "F"}, "must be absolute");
  check_usage_error({"--handover", "rel.sock", "F"}, "must be absolute");
  check_usage_error({"--control", "rel.sock", "F"}, "must be absolute");
  check_usage_error({"--take-over", "", "F"}, "must be absolute");
  check_usage_error({"-c", "/dev/nbd0", "--handover", "/h", "F"}, "do not go with it");
  check_usage_error({"-c", "/dev/nbd0", "--take-over", "/h", "F"}, "do not go with it");
  CHECK(parsed({"-k", "/s", "-p", "1", "F"}).socket_path == "/s");
}

TEST_CASE("options: strings are as long as NBD allows") {
  CHECK(parsed({"-x", std::string(4096, 'x'), "F"}).exports[0].name.size() == 4096);
  CHECK(parsed({"-D", std::string(4096, 'x'), "F"}).description.size() == 4096);
  check_usage_error({"-x", std::string(4097, 'x'), "F"}, "-x: 4097 bytes");
  check_usage_error({"-D", std::string(4097, 'x'), "F"}, "-D: 4097 bytes");
  check_usage_error({"--export", std::string(4097, 'x') + "=a"}, "--export: 4097 bytes");
}

TEST_CASE("options: modes without effect are still checked") {
  for (const char* mode : {"none", "off", "writeback", "writethrough", "directsync", "unsafe"}) {
    parsed({"--cache", mode, "F"});
  }
  for (const char* mode : {"threads", "native", "io_uring"}) parsed({"--aio", mode, "F"});
  for (const char* mode : {"ignore", "off", "unmap", "on"}) parsed({"--discard", mode, "F"});
  for (const char* mode : {"off", "on"}) parsed({"--detect-zeroes", mode, "F"});
  parsed({"--discard=unmap", "--detect-zeroes=unmap", "F"});
  check_usage_error({"--cache=foo", "F"}, "--cache: \"foo\" is not one of: none");
  check_usage_error({"--aio=foo", "F"}, "--aio: \"foo\" is not one of: threads");
  check_usage_error({"--discard=foo", "F"}, "--discard: \"foo\" is not one of: ignore");
  check_usage_error({"--detect-zeroes=foo", "F"}, "--detect-zeroes: \"foo\" is not one of: off");
  check_usage_error({"--detect-zeroes=unmap", "F"}, "only allowed with --discard=unmap");
  check_usage_error({"-n", "--cache=none", "F"}, "-n and --cache can only be specified once");
  check_usage_error({"-nn", "F"}, "-n and --cache can only be specified once");
  check_usage_error({"--aio=threads", "--aio=threads", "F"}, "--aio can only be specified once");
  check_usage_error({"--discard=on", "--discard=on", "F"}, "--discard can only be specified once");
}

TEST_CASE("options: -c names the kernel's device for one image") {
  CHECK(parsed({"F"}).device.empty());
  CHECK(parsed({"-c", "/dev/nbd0", "F"}).device == "/dev/nbd0");
  CHECK(parsed({"-c/dev/nbd1", "F"}).device == "/dev/nbd1");
  CHECK(parsed({"--connect=/dev/nbd2", "--export", "a=F"}).device == "/dev/nbd2");
  CHECK(parsed({"-c", "/dev/nbd0", "--export", "a=F", "G"}).exports[0].path == "G");
  check_usage_error({"-c", "/dev/nbd0"}, "Invalid number of arguments");
  check_usage_error({"-c", "", "F"}, "-c: the device's name is empty");
  check_usage_error({"-c", "/dev/nbd0", "--export", "a=F", "--export", "b=G"}, "Name it as FILE");
  check_usage_error({"-c", "/dev/nbd0", "--directory", "D"}, "Name it as FILE");
  check_usage_error({"-L", "-c", "/dev/nbd0"}, "List mode (-L) is incompatible");
}

TEST_CASE("options: -d takes the device's name, and nothing is served then") {
  for (const Words& words :
       {Words{"-d", "/dev/nbd3"}, Words{"--disconnect", "/dev/nbd3"}, Words{"/dev/nbd3", "-d"},
        Words{"-c", "/dev/nbd0", "-d", "/dev/nbd3"}}) {
    const auto line = parse_command_line(words);
    REQUIRE(line);
    CHECK(line->action == CommandLine::Action::kDisconnect);
    CHECK(line->options.device == "/dev/nbd3");
  }
  check_usage_error({"-d"}, "0 devices to disconnect");
  check_usage_error({"-d", "/dev/nbd0", "/dev/nbd1"}, "2 devices to disconnect");
  check_usage_error({"-L", "-d"}, "List mode (-L) is incompatible");
}

TEST_CASE("options: what asks for writing, and what is not served, says so") {
  const auto refused = [](const Words& words, const std::string& text) {
    check_refused(words, ErrorKind::kUnsupported, text);
  };
  refused({"-s", "F"}, "-s, --snapshot asks for writing: underlay-nbd is read-only");
  refused({"--snapshot", "F"}, "asks for writing");
  refused({"-P", "1", "F"}, "-P, --partition is not supported");
  refused({"-T", "nbd*", "F"}, "-T, --trace is not supported");
  refused({"--tls-hostname", "a", "-L"}, "--tls-hostname is not supported");
  refused({"--selinux-label", "a", "F"}, "--selinux-label is not supported yet");
  refused({"nbd:localhost:10809"}, "has a protocol");
  refused({"ftp://host/disk"}, "has a protocol that is none of http, https and s3");
  refused({"json:{\"driver\":\"raw\"}"}, "json: names are not supported");
  refused({"--export", "x=nbd:unix:/s"}, "has a protocol");
}

TEST_CASE("options: what lies on a server is an image as any other") {
  for (const char* name : {"http://host/disk", "https://host/disk?a=b", "s3://bucket/a:b"}) {
    CHECK(parsed({name}).exports[0].path == name);
    CHECK(parsed({"--export", std::string("x=") + name}).exports[0].path == name);
  }
}

TEST_CASE("options: a colon after a slash, or after file:, is part of the name") {
  CHECK(parsed({"./a:b"}).exports[0].path == "./a:b");
  CHECK(parsed({"file:a:b"}).exports[0].path == "a:b");
  CHECK(parsed({"file:/x"}).exports[0].path == "/x");
}

TEST_CASE("options: --export names several images, with FILE or without") {
  const Options options =
      parsed({"-f", "raw", "-l", "s", "--export", "a=1", "--export=b=x=2", "F"});
  REQUIRE(options.exports.size() == 3);
  CHECK(options.exports[0].name == "");
  CHECK(options.exports[1].name == "a");
  CHECK(options.exports[1].path == "1");
  CHECK(options.exports[2].name == "b");
  CHECK(options.exports[2].path == "x=2");
  for (const ExportOption& made : options.exports) {
    CHECK(made.open.format == "raw");
    CHECK(made.open.image.snapshot == "s");
  }
  check_usage_error({"--export", "a=1", "--export", "a=2"}, "two exports have the name \"a\"");
  check_usage_error({"--export", "=1", "F"}, "two exports have the name \"\"");
  check_usage_error({"--export", "a"}, "is not NAME=IMAGE");
  check_usage_error({"--export", "a="}, "is not NAME=IMAGE");
}

TEST_CASE("options: -l takes both of qemu-nbd's forms") {
  CHECK(parsed({"-l", "snapshot.id=1,snapshot.name=s", "F"}).exports[0].open.image.snapshot ==
        "snapshot.id=1,snapshot.name=s");
  check_usage_error({"-l", "snapshot.foo=1", "F"}, "-l: \"snapshot.foo=1\" is neither");
  check_usage_error({"-l", "snapshot.id=1,foo=2", "F"}, "-l: \"foo=2\" is neither");
}

TEST_CASE("options: budgets have bounds") {
  for (const char* option : {"--cluster-cache", "--table-cache"}) {
    CHECK(parse_command_line({option, "1M", "F"}));
    CHECK(parse_command_line({option, "1048576", "F"}));
    for (const char* size :
         {"0", "1023K", "1025G", "x", "", "M", "-1M", "1T", "18446744073709551615G"}) {
      check_usage_error({option, size, "F"}, std::string(option) + ": ");
    }
  }
  for (const char* number : {"257", "-1", "x", ""}) {
    check_usage_error({"--threads", number, "F"}, "--threads: ");
  }
  CHECK(parsed({"--poll", "1000", "F"}).poll == std::chrono::milliseconds(1));
  for (const char* number : {"1001", "-1", "50us", ""}) {
    check_usage_error({"--poll", number, "F"}, "--poll: ");
  }
}

TEST_CASE("options: -L goes with nothing that makes an export") {
  const auto line = parse_command_line({"-L", "-k", "/s", "-t", "-r", "-e", "2"});
  REQUIRE(line);
  CHECK(line->action == CommandLine::Action::kListExports);
  CHECK(line->options.socket_path == "/s");
  CHECK(parse_command_line({"--list", "-p", "1", "-b", "::1"})->options.bind_address == "::1");
  check_usage_error({"-L", "F"}, "incompatible with a file name");
  check_usage_error({"-L", "--fork"}, "does not --fork");
  const std::vector<Words> settings = {
      {"-f", "raw"}, {"-o", "1"}, {"-x", "a"}, {"-D", "a"},
      {"-A"},        {"-n"},      {"-l", "a"}, {"--export", "a=b"}};
  for (Words words : settings) {
    words.push_back("-L");
    check_usage_error(words, "incompatible with per-device settings");
  }
}

TEST_CASE("options: -h and -V print and ask for nothing else") {
  for (const char* word : {"-h", "--help", "-V", "--version"}) {
    const auto line = parse_command_line({word});
    REQUIRE(line);
    CHECK(line->action == CommandLine::Action::kPrintAndExit);
    CHECK(line->text.ends_with('\n'));
  }
  CHECK(parse_command_line({"-V"})->text.starts_with("underlay-nbd "));
}

TEST_CASE("options: the help text names every option that is served, in at most 100 columns") {
  const std::string text = usage_text();
  for (const OptionRule& rule : option_rules()) {
    INFO(std::string(rule.name));
    const bool named = text.find("--" + std::string(rule.name)) != std::string::npos;
    CHECK(named == rule.refusal.empty());
    if (rule.letter != 0 && named) {
      CHECK(text.find(fmt::format("  -{}, --{}", rule.letter, rule.name)) != std::string::npos);
    }
  }
  CHECK(text.find(format_names()) != std::string::npos);
  size_t start = 0;
  for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', start)) {
    CHECK(end - start <= 100);
    start = end + 1;
  }
}

TEST_CASE("options: no name or letter stands twice in the table") {
  std::set<std::string_view> names;
  std::set<char> letters;
  for (const OptionRule& rule : option_rules()) {
    CHECK(names.insert(rule.name).second);
    if (rule.letter != 0) CHECK(letters.insert(rule.letter).second);
  }
}

TEST_CASE("config: the command line wins, what repeats adds up") {
  const ConfigFile file(
      "# a comment\n\nexport-name = from-file\nshared=9\npersistent = on\nverbose = off\n"
      "export = a=1\nallow-path = /f\nport = 10810\nnocache = on\n");
  const Options options = parsed({"--config", file.path(), "-e", "3", "--export", "b=2",
                                  "--allow-path=/c", "--cache=unsafe", "F"});
  CHECK(options.exports[0].name == "from-file");
  CHECK(options.max_clients == 3);
  CHECK(options.persistent);
  CHECK_FALSE(options.verbose);
  CHECK(options.port == "10810");
  CHECK(options.address_given);
  CHECK(options.exports.size() == 3);
  CHECK(options.allow_paths == Words{"/c", "/f"});
}

TEST_CASE("config: an address of the command line is not hidden by one of the file") {
  const ConfigFile socket("socket = /s\n");
  CHECK(parsed({"--config", socket.path(), "F"}).socket_path == "/s");
  CHECK(parsed({"--config", socket.path(), "-p", "1", "F"}).socket_path == "");
  const ConfigFile tcp("port = 2\n");
  CHECK(parsed({"--config", tcp.path(), "-k", "/s", "F"}).socket_path == "/s");
  CHECK(parsed({"--config", tcp.path(), "-b", "::1", "F"}).port == "2");
}

TEST_CASE("config: what is wrong is told with file and line") {
  const auto refused = [](const std::string& text, const std::string& message) {
    const ConfigFile file(text);
    check_usage_error({"--config", file.path(), "F"}, file.path() + ": " + message);
  };
  refused("fork = on\nnope = 1\n", "line 2: ");
  refused("\n\nfork\n", "line 3: ");
  refused("[section]\n", "line 1: there are no sections");
  refused("fork = maybe\n", "line 1: fork: \"maybe\" is neither on nor off");
  refused("config = /x\n", "line 1: \"config\" has no place");
  refused("help = on\n", "line 1: \"help\" has no place");
  refused("FILE = x\n", "line 1: \"FILE\" has no place");
  refused("aio = threads\naio = threads\n", "--aio can only be specified once");
  refused("cache = none\nnocache = on\n", "-n and --cache can only be specified once");
  check_refused({"--config", "/nonexistent", "F"}, ErrorKind::kIo, "--config: cannot open");
  check_refused({"--config", "/", "F"}, ErrorKind::kIo, "--config: cannot read");
}

TEST_CASE("config: options that are not served are refused there, too") {
  const ConfigFile file("trace = a\n");
  check_refused({"--config", file.path(), "F"}, ErrorKind::kUnsupported, "--trace");
}

}  // namespace underlay
