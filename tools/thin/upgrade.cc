#include "tools/thin/upgrade.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tools/thin/attachment.h"
#include "tools/thin/image_choice.h"
#include "tools/thin/image_plan.h"
#include "tools/thin/output.h"
#include "tools/thin/registry_store.h"
#include "tools/thin/server_process.h"
#include "tools/thin/shell_words.h"

namespace underlay::thin {
namespace {

using Clock = std::chrono::steady_clock;

struct Upgraded {
  ImageRecord image;
  pid_t pid = 0;
  const char* method = "";
  double milliseconds = 0;
};

// The new server starts beside the old one, so that it has shown that it can serve the image before
// the old one ends.
Result<pid_t> replace_server(const Host& host, const ImageRecord& image) {
  const pid_t pid = TRY(start_server(host, image, StartMode::kBeside));
  if (const auto old_server = TRY(open_server(host, image.id))) {
    TRY(end_server(*old_server));
  }
  TRY(promote_server(host, image.id));
  const auto device = TRY(find_attachment(image));
  if (!device) return pid;
  if (auto renewed = renew_connections(host, image, *device); !renewed) {
    return with_context(std::move(renewed).error(),
                        fmt::format("the new server runs, but {} has no connection to it ('watch' "
                                    "tries again): ",
                                    device->path));
  }
  return pid;
}

Result<Upgraded> upgrade_image(const Host& host, const ImageRecord& image) {
  const UniqueFd lock = TRY(lock_server(host, image.id));
  if (!TRY(running_server(host, image.id))) {
    return in_file(fail(ErrorKind::kUsage,
                        "no server runs for it: 'underlay-thin watch --once' "
                        "starts it when it is attached"),
                   image.location);
  }
  TRY(check_unchanged(image));
  Upgraded result{.image = image};
  const auto start = Clock::now();
  const auto successor = start_server(host, image, StartMode::kTakeOver);
  if (successor) {
    result.pid = *successor;
    result.method = "handover";
  } else {
    if (host.verbose) {
      fmt::print(stderr, "underlay-thin: no hand-over: {}\n", successor.error().to_string());
    }
    result.pid = TRY(replace_server(host, image));
    result.method = "reconnect";
  }
  result.milliseconds = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  return result;
}

Result<std::vector<ImageRecord>> images_to_upgrade(const Host& host, const std::string& name) {
  const Registry registry = TRY(read_registry(host.state_dir));
  std::vector<ImageRecord> images;
  if (!name.empty()) {
    images.push_back(TRY(find_image(registry, name)));
    if (images.front().is_remote()) {
      return fail(ErrorKind::kUsage, "{}: its server runs elsewhere: there is nothing to upgrade",
                  images.front().location);
    }
    return images;
  }
  for (const ImageRecord& image : registry.images) {
    if (!image.is_remote() && TRY(running_server(host, image.id))) images.push_back(image);
  }
  return images;
}

// For people: what upgrade_image() does first.
Step plan_step(const Host& host, const ImageRecord& image) {
  Step step;
  step.name = "take-over";
  step.words = shell_words(server_command(host, image, StartMode::kTakeOver)) + " &";
  return step;
}

void report(const Host& host, const std::vector<Upgraded>& upgraded) {
  if (!host.json) {
    for (const Upgraded& one : upgraded) {
      fmt::print("{}: process {} serves it now, by {} in {:.0f} ms\n", one.image.location, one.pid,
                 one.method, one.milliseconds);
    }
    return;
  }
  auto list = nlohmann::ordered_json::array();
  for (const Upgraded& one : upgraded) {
    list.push_back({{"id", one.image.id},
                    {"image", one.image.location},
                    {"method", one.method},
                    {"milliseconds", std::round(one.milliseconds * 10) / 10}});
  }
  const nlohmann::ordered_json document{{"version", 1}, {"images", std::move(list)}};
  print_json(document);
}

}  // namespace

Result<void> upgrade_command(const Host& host, const UpgradeArguments& arguments) {
  const auto images = TRY(images_to_upgrade(host, arguments.image));
  if (host.dry_run) {
    std::vector<Step> steps;
    for (const ImageRecord& image : images) steps.push_back(plan_step(host, image));
    return perform(host, steps);
  }
  std::vector<Upgraded> upgraded;
  std::optional<Error> first;
  for (const ImageRecord& image : images) {
    auto result = upgrade_image(host, image);
    if (result) {
      upgraded.push_back(*std::move(result));
    } else if (!first) {
      first = std::move(result).error();
    } else {
      fmt::print(stderr, "underlay-thin: {}\n", result.error().to_string());
    }
  }
  report(host, upgraded);
  if (first) return Failure(*std::move(first));
  return {};
}

}  // namespace underlay::thin
