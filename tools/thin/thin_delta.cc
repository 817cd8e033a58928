#include "tools/thin/thin_delta.h"

#include <expat.h>

#include "tools/thin/thin_xml.h"

namespace underlay::thin {

struct ThinDeltaReader::State {
  XmlParser parser{"thin_delta"};
  bool found = false;
  std::vector<MappedRun> runs;

  Result<void> start(std::string_view element, const char** attributes) {
    if (element == "diff") found = true;
    if (element == "superblock" || element == "diff" || element == "same") return {};
    if (element != "left_only" && element != "right_only" && element != "different") {
      return fail(ErrorKind::kUnsupported, "thin_delta: an unknown element <{}>", element);
    }
    return append_run(runs, "thin_delta", xml_number(attributes, "begin"),
                      xml_number(attributes, "length"));
  }
};

ThinDeltaReader::ThinDeltaReader() : state_(std::make_unique<State>()) {
  state_->parser.on_start = [state = state_.get()](std::string_view element,
                                                   const char** attributes) {
    return state->start(element, attributes);
  };
}

ThinDeltaReader::~ThinDeltaReader() = default;

Result<void> ThinDeltaReader::add(std::string_view text) { return state_->parser.add(text); }

Result<std::vector<MappedRun>> ThinDeltaReader::finish() {
  TRY(state_->parser.finish());
  if (!state_->found) return fail(ErrorKind::kMalformed, "thin_delta: prints no difference");
  return std::move(state_->runs);
}

}  // namespace underlay::thin
