#include "server/usage.h"

#include <fmt/format.h>

#include "formats/format_table.h"

namespace underlay {
namespace {

constexpr const char* kUsage = R"(Usage: underlay-nbd [OPTIONS] FILE
  or:  underlay-nbd [OPTIONS] --export NAME=IMAGE ... | --directory DIR
  or:  underlay-nbd -c DEV [OPTIONS] FILE
  or:  underlay-nbd -d DEV
  or:  underlay-nbd -L [OPTIONS]
Serves disk images read-only to NBD clients; takes the options of qemu-nbd -r.

  -h, --help                display this help and exit
  -V, --version             output version information and exit

Connection properties:
  -p, --port=PORT           port to listen on (default '10809')
  -b, --bind=IFACE          address to bind to (default '0.0.0.0'; '' binds every IPv4 and IPv6 one)
  -k, --socket=PATH         absolute path of the unix socket to listen on instead
  -e, --shared=NUM          serve at most NUM clients at a time (default '1', '0' is no limit)
  -t, --persistent          don't exit on the last connection
  -v, --verbose             display extra debugging information
  -x, --export-name=NAME    name of FILE's export (default is the empty string)
  -D, --description=TEXT    human-readable description of the exports

Exposing part of the image:
  -o, --offset=OFFSET       offset into the image, in bytes
  -A, --allocation-depth    expose the allocation depth (qemu:allocation-depth)
  -B, --bitmap=NAME         expose a persistent dirty bitmap (qemu:dirty-bitmap:NAME); repeatable

More than one export at once:
      --export NAME=IMAGE   also export IMAGE (as FILE, with the same -f, -l, --image-opts) as NAME
      --directory DIR       export each image in the folder DIR under its file name

General purpose options:
  -L, --list                list exports available from another NBD server
      --fork                fork off the server process and exit the parent once the server is
                            running
      --pid-file=PATH       store the server's process ID in the given file
      --config FILE         read further options from FILE, as lines OPTION = VALUE with long names
      --allow-path DIR      images may name files (backing files, extents) in DIR, too; repeatable
      --parent CHILD=PATH   the parent of the image CHILD (path, or file name alone) is PATH;
                            repeatable
      --reader NAME         who reads the images: 'own' (default), or 'libyal' (libqcow, libvhdi)
                            for a second opinion
      --cluster-cache SIZE  memory for unpacked clusters (default '64M', suffixes K, M, G)
      --table-cache SIZE    memory for tables of images (default '32M', suffixes K, M, G)
      --threads NUM         threads that serve clients (default '0', one for each processor)
      --poll MICROSECONDS   look for requests for up to this time, at most 1000, before a thread
                            sleeps, while they come that soon: latency for CPU time (default '0')
      --handover PATH       listen on the unix socket PATH for a successor, which takes over all
                            clients without their notice
      --take-over PATH      take over the clients and listening sockets (instead of -k, -b, -p) of
                            the server that runs with --handover PATH, which then exits

Kernel integration (needs root):
  -c, --connect=DEV         connect FILE to the nbd device DEV, and go to the background unless -v;
                            with -e NUM, over NUM connections. Listens only where -k, -b, -p say.
                            Ends when DEV is disconnected; a signal to end disconnects it
  -d, --disconnect          disconnect the nbd device DEV

Block device options:
  -f, --format=FORMAT       set image format: {}
  -r, --read-only           export read-only (always on)
  -l, --load-snapshot=SNAPSHOT_PARAM
                            export an internal snapshot of FILE; SNAPSHOT_PARAM is
                            'snapshot.id=[ID],snapshot.name=[NAME]', or '[ID_OR_NAME]'
      --object OBJECT       a passphrase: 'secret,id=ID,file=FILE[,format=raw|base64]', all bytes of
                            FILE, for encrypt.key-secret=ID in --image-opts; repeatable
      --image-opts          treat FILE as image options: driver=FORMAT,file.filename=FILE

Checked, but without effect on a server that only reads:
  -n, --nocache             the same as --cache=none
      --cache=MODE          'none', 'writeback' (default), 'writethrough', 'directsync', 'unsafe'
      --aio=MODE            'threads' (default), 'native', 'io_uring'
      --discard=MODE        'ignore' (default), 'unmap'
      --detect-zeroes=MODE  'off' (default), 'on', 'unmap' (with --discard=unmap)
)";

}  // namespace

std::string usage_text() { return fmt::format(kUsage, format_names()); }

std::string version_text() { return fmt::format("underlay-nbd {}\n", UNDERLAY_VERSION); }

}  // namespace underlay
