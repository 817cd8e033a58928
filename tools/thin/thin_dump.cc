#include "tools/thin/thin_dump.h"

#include <expat.h>

#include <charconv>
#include <limits>
#include <map>
#include <optional>
#include <string>

namespace underlay::thin {
namespace {

// Pool blocks of a thin volume: more than its largest size (2^64 bytes) has in the smallest blocks.
constexpr uint64_t kMaxBlocks = uint64_t{1} << 48;

std::optional<std::string_view> attribute(const char** attributes, std::string_view name) {
  for (; attributes[0] != nullptr; attributes += 2) {
    if (name == attributes[0]) return attributes[1];
  }
  return std::nullopt;
}

std::optional<uint64_t> number(const char** attributes, std::string_view name) {
  const auto text = attribute(attributes, name);
  if (!text) return std::nullopt;
  uint64_t value = 0;
  const char* const last = text->data() + text->size();
  const auto [end, code] = std::from_chars(text->data(), last, value);
  if (code != std::errc() || end != last) return std::nullopt;
  return value;
}

Result<void> append(std::vector<MappedRun>& runs, std::optional<uint64_t> first,
                    std::optional<uint64_t> blocks) {
  if (!first || !blocks || *blocks == 0 || *first > kMaxBlocks || *blocks > kMaxBlocks) {
    return fail(ErrorKind::kMalformed, "thin_dump: a mapping without, or with impossible, blocks");
  }
  const uint64_t end = runs.empty() ? 0 : runs.back().first_block + runs.back().blocks;
  if (*first < end) {
    return fail(ErrorKind::kMalformed, "thin_dump: block {} comes after block {}", *first, end - 1);
  }
  if (!runs.empty() && *first == end) {
    runs.back().blocks += *blocks;
  } else {
    runs.push_back({.first_block = *first, .blocks = *blocks});
  }
  return {};
}

}  // namespace

struct ThinDumpReader::State {
  XML_Parser parser = nullptr;
  uint32_t thin_id = 0;
  bool found = false;
  std::vector<MappedRun> runs;
  std::vector<MappedRun>* target = nullptr;  // where mappings go at the moment
  std::map<std::string, std::vector<MappedRun>, std::less<>> definitions;
  Result<void> result;

  Result<void> start(std::string_view element, const char** attributes) {
    if (element == "device") {
      const auto id = number(attributes, "dev_id");
      if (!id) return fail(ErrorKind::kMalformed, "thin_dump: a device without an id");
      if (*id != thin_id) return {};
      found = true;
      target = &runs;
    } else if (element == "def") {
      target = &definitions[std::string(attribute(attributes, "name").value_or(""))];
    } else if (target == nullptr) {
      return {};
    } else if (element == "single_mapping") {
      return append(*target, number(attributes, "origin_block"), 1);
    } else if (element == "range_mapping") {
      return append(*target, number(attributes, "origin_begin"), number(attributes, "length"));
    } else if (element == "ref") {
      return refer(attribute(attributes, "name").value_or(""));
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
      TRY(append(*target, run.first_block, run.blocks));
    }
    return {};
  }
};

ThinDumpReader::ThinDumpReader(uint32_t thin_id) : state_(std::make_unique<State>()) {
  state_->thin_id = thin_id;
  state_->parser = XML_ParserCreate(nullptr);
  if (state_->parser == nullptr) return;  // add() says so
  XML_SetUserData(state_->parser, state_.get());
  XML_SetElementHandler(
      state_->parser,
      [](void* user, const char* name, const char** attributes) {
        auto& state = *static_cast<State*>(user);
        if (!state.result) return;
        state.result = state.start(name, attributes);
        if (!state.result) XML_StopParser(state.parser, XML_FALSE);
      },
      [](void* user, const char* name) {
        const std::string_view element = name;
        if (element == "device" || element == "def") static_cast<State*>(user)->target = nullptr;
      });
}

ThinDumpReader::~ThinDumpReader() {
  if (state_->parser != nullptr) XML_ParserFree(state_->parser);
}

Result<void> ThinDumpReader::add(std::string_view text) {
  if (state_->parser == nullptr) return fail(ErrorKind::kLimit, "no memory for an XML parser");
  if (text.size() > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return fail(ErrorKind::kLimit, "thin_dump: more than 2 GiB in one piece");
  }
  const XML_Status status =
      XML_Parse(state_->parser, text.data(), static_cast<int>(text.size()), XML_FALSE);
  if (!state_->result) return state_->result;
  if (status != XML_STATUS_OK) {
    return fail(ErrorKind::kMalformed, "thin_dump: line {}: {}",
                XML_GetCurrentLineNumber(state_->parser),
                XML_ErrorString(XML_GetErrorCode(state_->parser)));
  }
  return {};
}

Result<std::vector<MappedRun>> ThinDumpReader::finish() {
  TRY(add(""));  // an earlier failure is told again
  if (XML_Parse(state_->parser, "", 0, XML_TRUE) != XML_STATUS_OK) {
    return fail(ErrorKind::kMalformed, "thin_dump: its output is cut off: {}",
                XML_ErrorString(XML_GetErrorCode(state_->parser)));
  }
  if (!state_->found) {
    return fail(ErrorKind::kNotFound, "thin_dump: the pool has no thin volume with the id {}",
                state_->thin_id);
  }
  return std::move(state_->runs);
}

}  // namespace underlay::thin
