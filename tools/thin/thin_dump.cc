#include "tools/thin/thin_dump.h"

#include <map>
#include <optional>
#include <string>

#include "tools/thin/thin_xml.h"

namespace underlay::thin {

struct ThinDumpReader::State {
  XmlParser parser{"thin_dump"};
  uint32_t thin_id = 0;
  bool found = false;
  std::vector<MappedRun> runs;
  std::vector<MappedRun>* target = nullptr;  // where mappings go at the moment
  std::map<std::string, std::vector<MappedRun>, std::less<>> definitions;

  Result<void> start(std::string_view element, const char** attributes) {
    if (element == "device") {
      const auto id = xml_number(attributes, "dev_id");
      if (!id) return fail(ErrorKind::kMalformed, "thin_dump: a device without an id");
      if (*id != thin_id) return {};
      found = true;
      target = &runs;
    } else if (element == "def") {
      target = &definitions[std::string(xml_attribute(attributes, "name").value_or(""))];
    } else if (target == nullptr) {
      return {};
    } else if (element == "single_mapping") {
      return append_run(*target, "thin_dump", xml_number(attributes, "origin_block"), 1);
    } else if (element == "range_mapping") {
      return append_run(*target, "thin_dump", xml_number(attributes, "origin_begin"),
                        xml_number(attributes, "length"));
    } else if (element == "ref") {
      return refer(xml_attribute(attributes, "name").value_or(""));
    } else {
      return fail(ErrorKind::kUnsupported, "thin_dump: an unknown element <{}>", element);
    }
    return {};
  }

  Result<void> refer(std::string_view name) {
    const auto definition = definitions.find(name);
    if (definition == definitions.end() || &definition->second == target) {
      return fail(ErrorKind::kMalformed, "thin_dump: a reference to '{}', which is not there",
                  name);
    }
    for (const MappedRun& run : definition->second) {
      TRY(append_run(*target, "thin_dump", run.first_block, run.blocks));
    }
    return {};
  }
};

ThinDumpReader::ThinDumpReader(uint32_t thin_id) : state_(std::make_unique<State>()) {
  state_->thin_id = thin_id;
  state_->parser.on_start = [state = state_.get()](std::string_view element,
                                                   const char** attributes) {
    return state->start(element, attributes);
  };
  state_->parser.on_end = [state = state_.get()](std::string_view element) {
    if (element == "device" || element == "def") state->target = nullptr;
  };
}

ThinDumpReader::~ThinDumpReader() = default;

Result<void> ThinDumpReader::add(std::string_view text) { return state_->parser.add(text); }

Result<std::vector<MappedRun>> ThinDumpReader::finish() {
  TRY(state_->parser.finish());
  if (!state_->found) {
    return fail(ErrorKind::kNotFound, "thin_dump: the pool has no thin volume with the id {}",
                state_->thin_id);
  }
  return std::move(state_->runs);
}

}  // namespace underlay::thin
