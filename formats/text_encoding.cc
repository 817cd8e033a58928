#include "formats/text_encoding.h"

#include <iconv.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <optional>
#include <vector>

namespace underlay {
namespace {

// What images call an encoding, in lower case, and what iconv calls it. The text of an image never
// chooses what the C library loads. Windows means its own supersets by the Asian names.
struct Encoding {
  std::string_view name;
  const char* iconv_name;
};
constexpr std::array kEncodings = {
    Encoding{"utf-8", "UTF-8"},
    Encoding{"utf8", "UTF-8"},
    Encoding{"us-ascii", "UTF-8"},
    Encoding{"ascii", "UTF-8"},
    Encoding{"windows-874", "CP874"},
    Encoding{"windows-932", "CP932"},
    Encoding{"shift_jis", "CP932"},
    Encoding{"windows-31j", "CP932"},
    Encoding{"euc-jp", "EUC-JP"},
    Encoding{"windows-936", "CP936"},
    Encoding{"gb2312", "CP936"},
    Encoding{"gbk", "CP936"},
    Encoding{"gb18030", "GB18030"},
    Encoding{"windows-949", "UHC"},
    Encoding{"euc-kr", "UHC"},
    Encoding{"windows-950", "BIG5"},
    Encoding{"big5", "BIG5"},
    Encoding{"windows-1250", "CP1250"},
    Encoding{"windows-1251", "CP1251"},
    Encoding{"windows-1252", "CP1252"},
    Encoding{"windows-1253", "CP1253"},
    Encoding{"windows-1254", "CP1254"},
    Encoding{"windows-1255", "CP1255"},
    Encoding{"windows-1256", "CP1256"},
    Encoding{"windows-1257", "CP1257"},
    Encoding{"windows-1258", "CP1258"},
    Encoding{"iso-8859-1", "ISO-8859-1"},
    Encoding{"iso-8859-2", "ISO-8859-2"},
    Encoding{"iso-8859-5", "ISO-8859-5"},
    Encoding{"iso-8859-7", "ISO-8859-7"},
    Encoding{"iso-8859-9", "ISO-8859-9"},
    Encoding{"iso-8859-15", "ISO-8859-15"},
    Encoding{"koi8-r", "KOI8-R"},
};

const char* iconv_name_of(std::string_view encoding) {
  std::string name(encoding);
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  std::transform(name.begin(), name.end(), name.begin(), lower);
  const auto found = std::find_if(kEncodings.begin(), kEncodings.end(),
                                  [&](const Encoding& known) { return known.name == name; });
  return found == kEncodings.end() ? nullptr : found->iconv_name;
}

class Converter {
 public:
  explicit Converter(const char* from, const char* to = "UTF-8") : handle_(iconv_open(to, from)) {}
  Converter(const Converter&) = delete;
  Converter& operator=(const Converter&) = delete;
  ~Converter() {
    if (is_open()) iconv_close(handle_);
  }
  bool is_open() const { return handle_ != reinterpret_cast<iconv_t>(-1); }

  // nullopt when `text` is not in the encoding.
  std::optional<std::string> convert(std::string_view text) const {
    std::string in(text);
    std::string out(4 * text.size(), '\0');  // no byte gives more than one character
    char* from = in.data();
    char* to = out.data();
    size_t in_left = in.size();
    size_t out_left = out.size();
    if (iconv(handle_, &from, &in_left, &to, &out_left) != 0 || in_left != 0) return std::nullopt;
    // Some converters keep a character until they know whether an accent follows.
    if (iconv(handle_, nullptr, nullptr, &to, &out_left) != 0) return std::nullopt;
    out.resize(out.size() - out_left);
    return out;
  }

 private:
  iconv_t handle_;
};

}  // namespace

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 128; });
}

Result<std::string> to_utf8(std::string_view text, std::string_view encoding) {
  const char* name = iconv_name_of(encoding);
  if (name == nullptr) {
    return fail(ErrorKind::kUnsupported, "the encoding \"{}\" is unknown", printable(encoding, 80));
  }
  const Converter converter(name);
  if (!converter.is_open()) {
    return fail_errno(errno, "this host's iconv has no converter for the encoding {}", name);
  }
  auto converted = converter.convert(text);
  if (converted) return *std::move(converted);
  return fail(ErrorKind::kMalformed, "\"{}\" is no text in the encoding {}", printable(text, 200),
              printable(encoding, 80));
}

Result<std::vector<std::byte>> utf8_to_utf16(std::string_view text, ByteOrder order) {
  const Converter converter("UTF-8", order == ByteOrder::kBig ? "UTF-16BE" : "UTF-16LE");
  if (!converter.is_open()) {
    return fail_errno(errno, "this host's iconv has no converter for the encoding UTF-16");
  }
  const auto converted = converter.convert(text);
  if (!converted) {
    return fail(ErrorKind::kMalformed, "\"{}\" is no text in UTF-8", printable(text, 200));
  }
  const ByteSpan bytes = as_bytes(*converted);
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

void load_text_encodings() {
  // The C library unloads a converter that nobody has open.
  static const std::vector<std::unique_ptr<const Converter>> kept = [] {
    std::vector<std::unique_ptr<const Converter>> converters;
    for (const Encoding& encoding : kEncodings) {
      converters.push_back(std::make_unique<const Converter>(encoding.iconv_name));
    }
    return converters;
  }();
  (void)kept;
}

}  // namespace underlay
