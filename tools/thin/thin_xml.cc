#include "tools/thin/thin_xml.h"

#include <expat.h>

#include <charconv>
#include <limits>

namespace underlay::thin {
namespace {

// Pool blocks of a thin volume: more than its largest size (2^64 bytes) has in the smallest blocks.
constexpr uint64_t kMaxBlocks = uint64_t{1} << 48;

}  // namespace

XmlParser::XmlParser(std::string program)
    : program_(std::move(program)), parser_(XML_ParserCreate(nullptr)) {
  if (parser_ == nullptr) return;  // add() says so
  XML_SetUserData(parser_, this);
  XML_SetElementHandler(
      parser_,
      [](void* user, const char* name, const char** attributes) {
        auto& self = *static_cast<XmlParser*>(user);
        if (!self.result_) return;
        self.result_ = self.on_start(name, attributes);
        if (!self.result_) XML_StopParser(self.parser_, XML_FALSE);
      },
      [](void* user, const char* name) {
        auto& self = *static_cast<XmlParser*>(user);
        if (self.on_end) self.on_end(name);
      });
}

XmlParser::~XmlParser() {
  if (parser_ != nullptr) XML_ParserFree(parser_);
}

Result<void> XmlParser::add(std::string_view text) {
  if (parser_ == nullptr) return fail(ErrorKind::kLimit, "no memory for an XML parser");
  if (text.size() > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return fail(ErrorKind::kLimit, "{}: more than 2 GiB in one piece", program_);
  }
  const XML_Status status =
      XML_Parse(parser_, text.data(), static_cast<int>(text.size()), XML_FALSE);
  if (!result_) return result_;
  if (status == XML_STATUS_OK) return {};
  return fail(ErrorKind::kMalformed, "{}: line {}: {}", program_, XML_GetCurrentLineNumber(parser_),
              XML_ErrorString(XML_GetErrorCode(parser_)));
}

Result<void> XmlParser::finish() {
  TRY(add(""));  // an earlier failure is told again
  if (XML_Parse(parser_, "", 0, XML_TRUE) == XML_STATUS_OK) return {};
  return fail(ErrorKind::kMalformed, "{}: its output is cut off: {}", program_,
              XML_ErrorString(XML_GetErrorCode(parser_)));
}

std::optional<std::string_view> xml_attribute(const char** attributes, std::string_view name) {
  for (; attributes[0] != nullptr; attributes += 2) {
    if (name == attributes[0]) return attributes[1];
  }
  return std::nullopt;
}

std::optional<uint64_t> xml_number(const char** attributes, std::string_view name) {
  const auto text = xml_attribute(attributes, name);
  if (!text) return std::nullopt;
  uint64_t value = 0;
  const char* const last = text->data() + text->size();
  const auto [end, code] = std::from_chars(text->data(), last, value);
  if (code != std::errc() || end != last) return std::nullopt;
  return value;
}

Result<void> append_run(std::vector<MappedRun>& runs, std::string_view program,
                        std::optional<uint64_t> first, std::optional<uint64_t> blocks) {
  if (!first || !blocks || *blocks == 0 || *first > kMaxBlocks || *blocks > kMaxBlocks) {
    return fail(ErrorKind::kMalformed, "{}: a mapping without, or with impossible, blocks",
                program);
  }
  const uint64_t end = runs.empty() ? 0 : runs.back().first_block + runs.back().blocks;
  if (*first < end) {
    return fail(ErrorKind::kMalformed, "{}: block {} comes after block {}", program, *first,
                end - 1);
  }
  if (!runs.empty() && *first == end) {
    runs.back().blocks += *blocks;
  } else {
    runs.push_back({.first_block = *first, .blocks = *blocks});
  }
  return {};
}

}  // namespace underlay::thin
