#include "formats/libyal/libyal_file.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace underlay::libyal {
namespace {

// libbfio's and the libraries' ..._ACCESS_FLAG_READ.
constexpr int kReadAccess = 1;
// LIBBFIO_FLAG_IO_HANDLE_NON_MANAGED: the io handle is ours to free.
constexpr uint8_t kNonManaged = 0;

// Of handles of a pool that are open at a time.
constexpr int kAnyNumber = 0;

constexpr size_t kMaxReasonBytes = 512;

// The first line of the library's backtrace: where it failed, and at what.
std::string reason_of(const Library& library, LibraryError* error) {
  std::array<char, 8192> text{};
  if (error == nullptr || library.error_backtrace_sprint(error, text.data(), text.size()) < 0) {
    return "no reason given";
  }
  const std::string_view all = text.data();
  return std::string(all.substr(0, std::min(all.find_first_of("\r\n"), kMaxReasonBytes)));
}

}  // namespace

int LibraryFile::open_io(intptr_t* io_handle, int, LibraryError**) {
  reinterpret_cast<Io*>(io_handle)->open = true;
  return 1;
}

int LibraryFile::close_io(intptr_t* io_handle, LibraryError**) {
  reinterpret_cast<Io*>(io_handle)->open = false;
  return 0;
}

ssize_t LibraryFile::read_io(intptr_t* io_handle, uint8_t* buffer, size_t size, LibraryError**) {
  Io& io = *reinterpret_cast<Io*>(io_handle);
  const uint64_t size_of_source = io.source->size();
  if (io.position >= size_of_source) return 0;
  const auto present = static_cast<size_t>(std::min<uint64_t>(size, size_of_source - io.position));
  // No exception may pass through the library.
  const auto read = without_exceptions([&] {
    return io.source->read_at(io.position, {reinterpret_cast<std::byte*>(buffer), present});
  });
  if (!read) {
    io.failure = read.error();
    return -1;
  }
  io.position += present;
  return static_cast<ssize_t>(present);
}

ssize_t LibraryFile::write_io(intptr_t*, const uint8_t*, size_t, LibraryError**) { return -1; }

off64_t LibraryFile::seek_io(intptr_t* io_handle, off64_t offset, int whence, LibraryError**) {
  Io& io = *reinterpret_cast<Io*>(io_handle);
  off64_t base = 0;
  if (whence == SEEK_CUR) base = static_cast<off64_t>(io.position);
  if (whence == SEEK_END) base = static_cast<off64_t>(io.source->size());
  off64_t position = 0;
  if (__builtin_add_overflow(base, offset, &position) || position < 0) return -1;
  io.position = static_cast<uint64_t>(position);
  return position;
}

int LibraryFile::exists_io(intptr_t*, LibraryError**) { return 1; }

int LibraryFile::is_open_io(intptr_t* io_handle, LibraryError**) {
  return reinterpret_cast<Io*>(io_handle)->open ? 1 : 0;
}

int LibraryFile::get_size_io(intptr_t* io_handle, uint64_t* size, LibraryError**) {
  *size = reinterpret_cast<Io*>(io_handle)->source->size();
  return 1;
}

// The library's failure as an Error; frees `error`.
Failure LibraryFile::failed(std::string_view doing, LibraryError* error) {
  const std::string reason = reason_of(library_, error);
  library_.error_free(&error);
  if (*failure_) return Failure(*std::exchange(*failure_, std::nullopt));
  return in_file(fail(ErrorKind::kMalformed, "{} cannot {}: {}", library_.name, doing, reason),
                 name());
}

LibraryFile::LibraryFile(const Library& library, std::unique_ptr<LibraryFile> parent)
    : library_(library),
      parent_(std::move(parent)),
      failure_(parent_ ? parent_->failure_ : std::make_shared<std::optional<Error>>()) {}

Result<std::unique_ptr<LibraryFile>> LibraryFile::open(const Library& library, ImageFiles files,
                                                       std::unique_ptr<LibraryFile> parent) {
  std::unique_ptr<LibraryFile> file(new LibraryFile(library, std::move(parent)));
  const std::lock_guard lock(file->mutex_);
  TRY(file->open_all(std::move(files)));
  return file;
}

Result<void> LibraryFile::open_all(ImageFiles files) {
  handle_ = TRY(make_handle(std::move(files.image)));
  LibraryError* error = nullptr;
  if (library_.file_initialize(&file_, &error) != 1) return failed("make a handle", error);
  if (library_.file_open_file_io_handle(file_, handle_, kReadAccess, &error) != 1) {
    return failed("open the image", error);
  }
  if (library_.file_open_extents != nullptr) TRY(open_extents(std::move(files.extents)));
  if (parent_ && library_.file_set_parent(file_, parent_->file_, &error) != 1) {
    return failed("give the image its parent", error);
  }
  if (library_.file_get_media_size(file_, &size_, &error) != 1) {
    return failed("tell the size", error);
  }
  TRY(check_not_encrypted());
  // Failures inside it that it did not tell.
  if (*failure_) return failed("open the image", nullptr);
  return {};
}

// A bfio handle, which reads the source.
Result<Handle*> LibraryFile::make_handle(std::shared_ptr<const Source> source) {
  ios_.push_back(std::make_unique<Io>(Io{.source = std::move(source), .failure = *failure_}));
  auto* const io = reinterpret_cast<intptr_t*>(ios_.back().get());
  Handle* handle = nullptr;
  LibraryError* error = nullptr;
  if (library_.bfio_handle_initialize(&handle, io, nullptr, nullptr, open_io, close_io, read_io,
                                      write_io, seek_io, exists_io, is_open_io, get_size_io,
                                      kNonManaged, &error) != 1) {
    return failed("make a handle", error);
  }
  return handle;
}

Result<void> LibraryFile::open_extents(std::vector<std::shared_ptr<const Source>> extents) {
  LibraryError* error = nullptr;
  const int count = static_cast<int>(extents.size());
  if (library_.bfio_pool_initialize(&pool_, count, kAnyNumber, &error) != 1) {
    return failed("make a pool of handles", error);
  }
  for (int i = 0; i < count; ++i) {
    Handle* handle = TRY(make_handle(std::move(extents[static_cast<size_t>(i)])));
    if (library_.bfio_pool_set_handle(pool_, i, handle, kReadAccess, &error) != 1) {
      library_.bfio_handle_free(&handle, nullptr);
      return failed("make a pool of handles", error);
    }
  }
  if (library_.file_open_extents(file_, pool_, &error) != 1) {
    return failed("open the extents", error);
  }
  return {};
}

Result<void> LibraryFile::check_not_encrypted() {
  if (library_.file_get_encryption_method == nullptr) return {};
  uint32_t method = 0;
  LibraryError* error = nullptr;
  if (library_.file_get_encryption_method(file_, &method, &error) != 1) {
    return failed("tell the encryption method", error);
  }
  if (method == 0) return {};
  return in_file(fail(ErrorKind::kUnsupported,
                      "crypt_method is {}: {} does not decrypt images; our own reader may", method,
                      library_.name),
                 name());
}

LibraryFile::~LibraryFile() {
  // The file first: it uses the others, and the parent. All take null pointers.
  library_.file_free(&file_, nullptr);
  if (library_.bfio_pool_free != nullptr) library_.bfio_pool_free(&pool_, nullptr);
  library_.bfio_handle_free(&handle_, nullptr);
}

Result<void> LibraryFile::read_at(uint64_t offset, MutableByteSpan out) {
  const std::lock_guard lock(mutex_);
  failure_->reset();
  LibraryError* error = nullptr;
  const ssize_t got = library_.file_read_buffer_at_offset(file_, out.data(), out.size(),
                                                          static_cast<off64_t>(offset), &error);
  if (got < 0) return failed(fmt::format("read guest offset {}", offset), error);
  library_.error_free(&error);
  if (*failure_) return failed("read", nullptr);
  if (static_cast<size_t>(got) != out.size()) {
    return in_file(fail(ErrorKind::kMalformed, "{} gave {} of {} bytes at guest offset {}",
                        library_.name, got, out.size(), offset),
                   name());
  }
  return {};
}

}  // namespace underlay::libyal
