// What servers of images send, and what images name on them. The first byte says which.
#include <algorithm>
#include <string>

#include "fuzz/rules.h"
#include "io/http/aws_credentials.h"
#include "io/http/aws_files.h"
#include "io/http/http_reply.h"
#include "io/http/remote_name.h"
#include "io/http/write_reply.h"
#include "io/http/xml_element.h"

namespace underlay {
namespace {

// Four lines: a reply's status, Content-Range, ETag and Last-Modified.
ReplyHead head_of(std::string_view text) {
  const auto line = [&] {
    const std::string_view first = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), first.size() + 1));
    return std::string(first);
  };
  ReplyHead head;
  head.status = line() == "200" ? 200 : 206;
  head.content_range = line();
  head.etag = line();
  head.last_modified = line();
  return head;
}

void judge(std::string_view text) {
  const ReplyHead head = head_of(text);
  const JudgedReply opened = judge_reply(head, 0, 65535, nullptr);
  if (opened.meaning != ReplyMeaning::kBytes) return;
  require(opened.length > 0 && opened.length <= 65536, "a range of what was asked for");
  require(opened.length <= opened.pin.size, "no more bytes than the object has");
  require(opened.pin.has_strong_etag() || !opened.pin.last_modified.empty(), "a version");
  // Only the same version is one, and only for the same range.
  require(judge_reply(head, 0, 65535, &opened.pin).meaning == ReplyMeaning::kBytes, "itself");
  require(judge_reply(head, 1, 65535, &opened.pin).meaning != ReplyMeaning::kBytes,
          "another range");
  ObjectPin other = opened.pin;
  other.size += 1;
  require(judge_reply(head, 0, 65535, &other).meaning == ReplyMeaning::kChanged, "another size");
}

void name(std::string_view text) {
  for (const std::string& namer :
       {std::string("http://host:1/a/b/child"), std::string("s3://bucket/a/b/child")}) {
    const auto named = name_beside(namer, text, {});
    if (!named) continue;
    const std::string folder = namer.substr(0, namer.rfind('/') + 1);
    require(named->starts_with(folder) && named->size() > folder.size(), "beneath its folder");
    require(("/" + named->substr(folder.size()) + "/").find("/../") == std::string::npos,
            "no way up");
  }
  const std::string shown = shown_name(std::string(text));
  if (!is_remote_name(shown) || is_s3_name(shown)) return;
  require(shown.substr(0, shown.find('#')).find('?') == std::string::npos, "no query is shown");
}

void document(std::string_view text) {
  require(error_code_of(text).size() <= 4 * 64, "a short code");
  const std::string element = element_of(text, "UploadId", 4096);
  require(element.size() <= 4096, "no more than the limit");
  require(element_of("<A>" + xml_escaped(text) + "</A>", "A", SIZE_MAX) == text, "as it was");
  (void)judge_write(403, text);
  (void)parse_process_credentials(text);
  for (const auto& [key, value] : aws_profile(text, "default")) {
    require(key.find('\n') == std::string::npos && value.find('\n') == std::string::npos, "a line");
  }
}

}  // namespace
}  // namespace underlay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      underlay::judge(text);
      break;
    case 1:
      underlay::name(text);
      break;
    default:
      underlay::document(text);
  }
  return 0;
}
