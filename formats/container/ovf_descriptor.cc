#include "formats/container/ovf_descriptor.h"

#include <expat.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string_view>

namespace underlay::ovf {
namespace {

constexpr size_t kMaxElements = 1000;  // files and disks
constexpr char kNamespaceEnd = '|';

struct FreeParser {
  void operator()(XML_Parser parser) const { XML_ParserFree(parser); }
};

std::string_view local_name(const XML_Char* name) {
  const std::string_view full(name);
  const size_t end = full.rfind(kNamespaceEnd);
  return end == std::string_view::npos ? full : full.substr(end + 1);
}

std::string attribute(const XML_Char** attributes, std::string_view name) {
  for (; *attributes != nullptr; attributes += 2) {
    if (local_name(attributes[0]) == name) return attributes[1];
  }
  return "";
}

struct Collected {
  XML_Parser parser = nullptr;
  std::map<std::string, DiskFile, std::less<>> files;  // by id
  std::vector<std::string> disks;                      // their file's id
  bool has_doctype = false;
  bool is_too_long = false;
};

void on_element(void* user_data, const XML_Char* name, const XML_Char** attributes) {
  auto& collected = *static_cast<Collected*>(user_data);
  if (local_name(name) == "File") {
    collected.files[attribute(attributes, "id")] = {
        .href = attribute(attributes, "href"),
        .chunked = !attribute(attributes, "chunkSize").empty()};
  } else if (local_name(name) == "Disk") {
    std::string file = attribute(attributes, "fileRef");
    if (!file.empty()) collected.disks.push_back(std::move(file));
  }
  collected.is_too_long = collected.files.size() + collected.disks.size() > kMaxElements;
  if (collected.is_too_long) XML_StopParser(collected.parser, XML_FALSE);
}

// No descriptor has one, and its entities could make text without end.
void on_doctype(void* user_data, const XML_Char*, const XML_Char*, const XML_Char*, int) {
  auto& collected = *static_cast<Collected*>(user_data);
  collected.has_doctype = true;
  XML_StopParser(collected.parser, XML_FALSE);
}

Result<void> parse(ByteSpan descriptor, Collected& collected) {
  const std::unique_ptr<XML_ParserStruct, FreeParser> parser(
      XML_ParserCreateNS(nullptr, kNamespaceEnd));
  if (!parser) return fail(ErrorKind::kLimit, "no memory for an XML parser");
  collected.parser = parser.get();
  XML_SetUserData(parser.get(), &collected);
  XML_SetStartElementHandler(parser.get(), on_element);
  XML_SetStartDoctypeDeclHandler(parser.get(), on_doctype);
  const std::string_view text = as_text(descriptor);
  const auto status = XML_Parse(parser.get(), text.data(), static_cast<int>(text.size()), XML_TRUE);
  if (collected.has_doctype) return fail(ErrorKind::kUnsupported, "the OVF descriptor has a DTD");
  if (collected.is_too_long) {
    return fail(ErrorKind::kLimit, "the OVF descriptor names more than {} files and disks",
                kMaxElements);
  }
  if (status == XML_STATUS_OK) return {};
  return fail(ErrorKind::kMalformed, "the OVF descriptor is no XML: {} in line {}",
              XML_ErrorString(XML_GetErrorCode(parser.get())),
              XML_GetCurrentLineNumber(parser.get()));
}

}  // namespace

Result<std::vector<DiskFile>> parse_disks(ByteSpan descriptor) {
  if (descriptor.size() > kMaxDescriptorBytes) {
    return fail(ErrorKind::kLimit, "the OVF descriptor of {} bytes is longer than {}",
                descriptor.size(), kMaxDescriptorBytes);
  }
  Collected collected;
  TRY(without_exceptions([&] { return parse(descriptor, collected); }));
  std::vector<DiskFile> disks;
  for (const std::string& id : collected.disks) {
    const auto file = collected.files.find(id);
    if (file == collected.files.end()) {
      return fail(ErrorKind::kMalformed,
                  "the OVF descriptor has a disk in the file \"{}\", which it does not list",
                  printable(id, 200));
    }
    const auto is_same = [&](const DiskFile& disk) { return disk.href == file->second.href; };
    if (std::none_of(disks.begin(), disks.end(), is_same)) disks.push_back(file->second);
  }
  return disks;
}

}  // namespace underlay::ovf
