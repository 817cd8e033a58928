// What of a dump the operator wants to see.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "formats/inspection/inspector.h"
#include "io/source.h"

namespace underlay::img {

struct DumpChoice {
  std::vector<std::string> structures{};  // patterns of the shell, in any case; none: all
  bool fields = true;                     // not only where the structures lie
  bool hex = false;                       // the bytes of a field, too
};

// A structure or a field as it is printed.
struct DumpedStructure {
  std::string name;
  uint64_t offset = 0;  // byte in the file
  uint64_t length = 0;  // bytes
};
struct DumpedField {
  std::string name;
  uint64_t offset = 0;  // byte in the file
  uint64_t length = 0;  // bytes
  nlohmann::ordered_json value;
  std::string meaning;
  std::string bytes{};  // the first of them in hex, "" when they were not asked for
};

// Passes on what was chosen. Not thread-safe.
class ChosenDump : public DumpSink {
 public:
  // `source`, the image, outlives this.
  ChosenDump(DumpChoice choice, const Source& source)
      : choice_(std::move(choice)), source_(source) {}

  Result<void> begin(std::string_view name, uint64_t offset, uint64_t length) final;
  bool wants_fields(std::string_view name) const final;
  Result<void> field(std::string_view name, uint64_t offset, uint64_t length,
                     const nlohmann::ordered_json& value, std::string_view meaning) final;

  // Nothing comes any more. `whole`: nothing failed.
  virtual void end(bool whole) = 0;
  // Was any structure of those that the operator wants?
  bool found() const { return found_; }
  uint64_t structures() const { return structures_; }  // begun, also those nobody wants

  // Of a field, in hex; one that is longer (a block of metadata, say) would fill the screen.
  static constexpr uint64_t kMaxHexBytes = 64;

 protected:
  const DumpChoice& choice() const { return choice_; }

 private:
  virtual void print(DumpedStructure structure) = 0;
  virtual void print(DumpedField field) = 0;
  bool is_chosen(std::string_view structure) const;

  DumpChoice choice_;
  const Source& source_;
  bool chosen_ = false;  // the structure that has begun
  bool found_ = false;
  uint64_t structures_ = 0;
};

}  // namespace underlay::img
