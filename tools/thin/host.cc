#include "tools/thin/host.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "tools/thin/output.h"

namespace underlay::thin {
void print_plan(const Host& host) {
  if (!*host.planned) return;
  if (!host.json) {
    for (const PlannedStep& step : **host.planned) fmt::print("{}\n", step.words);
    return;
  }
  auto list = nlohmann::ordered_json::array();
  for (const PlannedStep& step : **host.planned) {
    list.push_back({{"name", step.name}, {"command", step.words}});
  }
  const nlohmann::ordered_json document{{"version", 1}, {"steps", std::move(list)}};
  print_json(document);
}

Result<void> perform(const Host& host, const std::vector<Step>& steps) {
  if (host.dry_run) {
    if (!*host.planned) host.planned->emplace();
    for (const Step& step : steps) (*host.planned)->push_back({step.name, step.words});
    return {};
  }
  StepReport report;
  const auto result = run_steps(steps, report);
  if (host.verbose) {
    for (const StepTime& step : report.done) {
      fmt::print(stderr, "{:<20} {:>8.1f} ms  {}\n", step.name,
                 static_cast<double>(step.time.count()) / 1000.0, step.words);
    }
  }
  return result;
}

}  // namespace underlay::thin
