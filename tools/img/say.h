// What underlay-img says: one line each on standard error, JSON on standard output.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "io/error.h"
#include "tools/img/command.h"

namespace underlay::img {

// "LINE", and "underlay-img: LINE".
void say_line(const std::string& line);
void say_error(const std::string& line);
// "underlay-img: warning: LINE" for each.
void say_warnings(const std::vector<std::string>& lines);

// Over several lines, as qemu-img prints it. Bytes that are no UTF-8 (of paths) are replaced.
void print_json(const nlohmann::ordered_json& document);
// The same in one line, for parts of a document that is printed bit by bit.
std::string json_in_one_line(const nlohmann::ordered_json& value);

// The version of what is printed as JSON: grows when a field of ours changes or goes away.
inline constexpr int kJsonVersion = 1;

// --output=human|json, as qemu-img takes it.
enum class OutputFormat : uint8_t { kHuman, kJson };
Result<OutputFormat> output_format(const Given& given);
Option output_option();
Option quiet_option();     // -q, --quiet
Option progress_option();  // -p, --progress

// -T, --cache of the source, which has no effect here; is its value one of qemu-img's? Fails with
// kUsage.
Option cache_option();
Result<void> check_cache_option(const Given& given);

}  // namespace underlay::img
