#include "server/control/control_client.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string_view>

#include "io/error.h"
#include "io/http/remote_name.h"
#include "io/unique_fd.h"
#include "server/control/control_table.h"

namespace underlay {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFailed = 1;
constexpr int kUsageError = 2;
constexpr std::string_view kDefaultSocket = "/run/underlay-nbd/control";

constexpr std::string_view kUsage = R"(Usage: underlay-nbd ctl [OPTIONS] COMMAND [KEY=VALUE]...
Asks the underlay-nbd that runs with --control PATH, and prints its answer as JSON.

  exports                   what is served: names, sizes, clients, images
  clients                   who reads what, since when, how much
  add name=NAME image=PATH [format=FORMAT] [snapshot=SNAPSHOT] [description=TEXT]
                            serve one more image, as --export would
  remove name=NAME [hide=on]
                            serve it no longer; with clients only with hide=on: they keep it, nobody
                            else finds it, and it is closed when they have left
  drain                     accept no more clients, and end when the last has left
  reload                    read the file of --config and the TLS credentials again, as after SIGHUP
  status                    whether it serves or drains, for how many clients
  statistics                all that is counted
  cache [trim=SIZE]         what --cache-dir has of which images; with trim=SIZE, once what was not
                            used for longest is removed until SIZE is left (suffixes K, M, G)
  log-level level=LEVEL     'normal' or 'verbose'

      --socket PATH         the server's control socket (default '/run/underlay-nbd/control')
  -h, --help                display this help and exit
)";

struct Request {
  std::string socket{kDefaultSocket};
  bool help = false;
  Json command;
};

Result<Json> value_of(const ControlCommand& command, const ControlArgument& argument,
                      const std::string& text) {
  // The server's folder is another.
  if (argument.name == "image" && !is_remote_name(text)) {
    return Json(std::filesystem::absolute(text).string());
  }
  if (argument.kind == ControlArgument::Kind::kText) return Json(text);
  if (text == "on" || text == "true") return Json(true);
  if (text == "off" || text == "false") return Json(false);
  return fail(ErrorKind::kUsage, "{}: {}=\"{}\" is neither on nor off", command.name, argument.name,
              printable(text, 80));
}

Result<void> take_argument(const ControlCommand& command, const std::string& word,
                           Json& arguments) {
  const size_t equals = word.find('=');
  if (equals == std::string::npos) {
    return fail(ErrorKind::kUsage, "{}: \"{}\" is not KEY=VALUE", command.name,
                printable(word, 80));
  }
  const std::string key = word.substr(0, equals);
  const ControlArgument* argument = find_argument(command, key);
  if (argument == nullptr || arguments.contains(key)) {
    return fail(ErrorKind::kUsage, "{} {} \"{}\"", command.name,
                argument == nullptr ? "has no argument" : "takes only one", printable(key, 80));
  }
  arguments[key] = TRY(value_of(command, *argument, word.substr(equals + 1)));
  return {};
}

Result<void> take_command(std::vector<std::string> words, Request& request) {
  if (words.empty()) return fail(ErrorKind::kUsage, "which COMMAND?");
  const ControlCommand* command = find_control_command(words.front());
  if (command == nullptr) {
    return fail(ErrorKind::kUsage, "there is no command \"{}\"", printable(words.front(), 80));
  }
  Json arguments = Json::object();
  for (size_t i = 1; i < words.size(); ++i) TRY(take_argument(*command, words[i], arguments));
  for (const ControlArgument& argument : command->arguments) {
    if (argument.required && !arguments.contains(argument.name)) {
      return fail(ErrorKind::kUsage, "{} needs {}=", command->name, argument.name);
    }
  }
  request.command = {{"command", command->name}, {"arguments", std::move(arguments)}};
  return {};
}

// Options may stand anywhere, until "--".
Result<Request> understand(const std::vector<std::string>& arguments) {
  Request request;
  std::vector<std::string> words;
  bool options = true;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (!options || !word.starts_with('-')) {
      words.push_back(word);
    } else if (word == "--") {
      options = false;
    } else if (word == "-h" || word == "--help") {
      request.help = true;
    } else if (word.starts_with("--socket=")) {
      request.socket = word.substr(std::strlen("--socket="));
    } else if (word == "--socket" && i + 1 < arguments.size()) {
      request.socket = arguments[++i];
    } else {
      return fail(ErrorKind::kUsage, "{}",
                  word == "--socket" ? "--socket needs a PATH"
                                     : fmt::format("there is no option {}", printable(word, 80)));
    }
  }
  if (!request.help) TRY(take_command(std::move(words), request));
  return request;
}

Result<UniqueFd> connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return fail(ErrorKind::kUsage, "--socket: a path of {} bytes, and 1 to {} are possible",
                path.size(), sizeof(address.sun_path) - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno(errno, "cannot make a socket");
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    return socket;
  }
  return in_file(fail_errno(errno, "no server answers (--socket, --control)"), path);
}

Result<std::string> ask(const UniqueFd& socket, std::string_view line) {
  while (!line.empty()) {
    const ssize_t sent = ::send(socket.get(), line.data(), line.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EINTR) return fail_errno(errno, "the server takes no command");
    if (sent > 0) line.remove_prefix(static_cast<size_t>(sent));
  }
  std::string answer;
  std::array<char, 16 << 10> part{};
  for (;;) {
    const ssize_t got = ::recv(socket.get(), part.data(), part.size(), 0);
    if (got == 0) return answer;
    if (got < 0 && errno != EINTR) return fail_errno(errno, "the server gives no answer");
    if (got > 0) answer.append(part.data(), static_cast<size_t>(got));
  }
}

// What stands behind "return".
Result<Json> returned(const std::string& answer) {
  Json json = Json::parse(answer, nullptr, false);
  if (json.is_object() && json.contains("return")) return std::move(json["return"]);
  const Json::json_pointer message("/error/message");
  if (json.is_object() && json.contains(message) && json[message].is_string()) {
    return fail(ErrorKind::kIo, "{}", json[message].get<std::string>());
  }
  return fail(ErrorKind::kMalformed, "the server has closed the connection without an answer");
}

Result<Json> carry_out(const Request& request) {
  const UniqueFd socket = TRY(connect(request.socket));
  const std::string line =
      request.command.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
  return returned(TRY(ask(socket, line)));
}

int report(const Error& error, int status) {
  std::cerr << "underlay-nbd ctl: " << error.to_string() << '\n';
  return status;
}

}  // namespace

int run_control_client(const std::vector<std::string>& arguments) {
  const auto request = understand(arguments);
  if (!request) {
    const int status = report(request.error(), kUsageError);
    std::cerr << "underlay-nbd ctl: try 'underlay-nbd ctl --help' for more information\n";
    return status;
  }
  if (request->help) {
    std::cout << kUsage;
    return std::cout.flush() ? 0 : kFailed;
  }
  const auto answer = carry_out(*request);
  if (!answer) return report(answer.error(), kFailed);
  std::cout << answer->dump(4, ' ', true) << '\n';
  return std::cout.flush() ? 0 : kFailed;
}

}  // namespace underlay
