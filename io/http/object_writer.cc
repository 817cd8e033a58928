#include "io/http/object_writer.h"

#include "io/http/multipart_writer.h"
#include "io/http/put_writer.h"

namespace underlay {

Result<std::unique_ptr<ObjectWriter>> create_object(const std::string& name,
                                                    WriteSettings settings) {
  HttpTarget target = TRY(http_target(name));
  if (target.is_store()) return make_multipart_writer(std::move(target), std::move(settings));
  return make_put_writer(std::move(target), std::move(settings));
}

}  // namespace underlay
