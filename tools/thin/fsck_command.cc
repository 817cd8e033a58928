#include "tools/thin/fsck_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/thin/fsck_checks.h"
#include "tools/thin/fsck_observe.h"
#include "tools/thin/fsck_repair.h"
#include "tools/thin/output.h"

namespace underlay::thin {
namespace {

// A repair may uncover what another needs: a device that goes frees the one below it.
constexpr int kRounds = 5;

struct Found {
  FsckProblem problem;
  bool repaired = false;
  std::string failure;  // of the repair
};

// What was found in any round, each once.
class Findings {
 public:
  Found& add(const FsckProblem& problem) {
    for (Found& one : all_) {
      if (one.problem == problem) return one;
    }
    return all_.emplace_back(Found{problem, false, ""});
  }
  const std::vector<Found>& all() const { return all_; }
  void settle(const std::vector<FsckProblem>& left) {
    for (Found& one : all_) {
      one.repaired = std::find(left.begin(), left.end(), one.problem) == left.end();
    }
  }

 private:
  std::vector<Found> all_;
};

// One round; true when anything was done.
bool repair_all(const Host& host, RegistryStore& store, const std::vector<FsckProblem>& problems,
                Findings& findings) {
  bool done = false;
  for (const FsckProblem& problem : problems) {
    Found& found = findings.add(problem);
    if (problem.repair == FsckRepair::kNone) continue;
    const auto repaired = repair_problem(host, store, problem);
    found.failure = repaired ? "" : repaired.error().to_string();
    done = done || repaired;
  }
  return done;
}

std::string line_of(const Found& found, bool repair) {
  if (found.repaired) return found.problem.text + ": repaired";
  if (!found.failure.empty()) return found.problem.text + ": not repaired: " + found.failure;
  const bool can = found.problem.repair != FsckRepair::kNone;
  return found.problem.text + (can && !repair ? " (fsck --repair puts it right)" : "");
}

void print(const Host& host, const std::vector<Found>& all, bool repair) {
  auto list = nlohmann::ordered_json::array();
  for (const Found& found : all) {
    const std::string line = line_of(found, repair);
    if (!host.json) fmt::print("{}\n", line);
    list.push_back({{"what", found.problem.what}, {"text", line}, {"repaired", found.repaired}});
  }
  if (!host.json) return;
  const nlohmann::ordered_json document{{"version", 1}, {"problems", std::move(list)}};
  print_json(document);
}

}  // namespace

Result<void> fsck_command(const Host& host, const FsckArguments& arguments) {
  const bool repair = arguments.repair && !host.dry_run;
  RegistryStore store = TRY(RegistryStore::open(host.state_dir));
  Findings findings;
  std::vector<FsckProblem> problems = find_problems(TRY(observe(host, store.get())));
  for (const FsckProblem& problem : problems) findings.add(problem);
  for (int round = 0; repair && round < kRounds && !problems.empty(); ++round) {
    const bool done = repair_all(host, store, problems, findings);
    problems = find_problems(TRY(observe(host, store.get())));
    if (!done) break;
  }
  for (const FsckProblem& problem : problems) findings.add(problem);
  findings.settle(problems);
  print(host, findings.all(), repair);
  if (problems.empty()) return {};
  return fail(ErrorKind::kUsage, "{} problem{} left", problems.size(),
              problems.size() == 1 ? " is" : "s are");
}

}  // namespace underlay::thin
