// The XML of thin-provisioning-tools, parsed by expat as it comes.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"
#include "tools/thin/thin_pool.h"

struct XML_ParserStruct;

namespace underlay::thin {

// Calls what is set for each element; the first failure ends it, and is told from then on. Errors
// begin with the program's name.
class XmlParser {
 public:
  explicit XmlParser(std::string program);
  ~XmlParser();
  XmlParser(const XmlParser&) = delete;
  XmlParser& operator=(const XmlParser&) = delete;

  std::function<Result<void>(std::string_view element, const char** attributes)> on_start;
  std::function<void(std::string_view element)> on_end;  // may be empty

  Result<void> add(std::string_view text);
  // After the last piece.
  Result<void> finish();

 private:
  std::string program_;
  XML_ParserStruct* parser_;
  Result<void> result_;
};

// nullopt: there is no such attribute, or (a number) it is none.
std::optional<std::string_view> xml_attribute(const char** attributes, std::string_view name);
std::optional<uint64_t> xml_number(const char** attributes, std::string_view name);

// Adds a run behind the others, merged with the last when they touch. kMalformed when it cannot be.
Result<void> append_run(std::vector<MappedRun>& runs, std::string_view program,
                        std::optional<uint64_t> first, std::optional<uint64_t> blocks);

}  // namespace underlay::thin
