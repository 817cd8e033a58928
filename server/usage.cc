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
  or:  underlay-nbd ctl [OPTIONS] COMMAND [KEY=VALUE]...
Serves disk images read-only to NBD clients; takes the options of qemu-nbd -r.
FILE may also be http://HOST/PATH, https://HOST/PATH, s3://BUCKET/KEY or nbd://HOST/NAME.

Commands:
  ctl COMMAND [KEY=VALUE]...    ask a running server, see 'underlay-nbd ctl --help'

  -h, --help                display this help and exit
      --help-limits         print what clients and images may ask for at most, and exit
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
      --export-rule RULE    'PATTERN,KEY=VALUE,...' of exports whose names have PATTERN (*, ?, []):
                            tls=require, clients=NUM, bandwidth=SIZE and requests=NUM a second,
                            user=USER, group=GROUP, network=ADDRESS/BITS; repeatable, the first that
                            fits counts
      --directory DIR       export each image in the folder DIR under its file name

General purpose options:
  -L, --list                list exports available from another NBD server
      --fork                fork off the server process and exit the parent once the server is
                            running
      --pid-file=PATH       store the server's process ID in the given file
      --config FILE         read further options from FILE, as lines OPTION = VALUE with long names;
                            SIGHUP reads it again
      --control PATH        answer 'underlay-nbd ctl' on the unix socket PATH, only for this user
      --allow-path DIR      images may name files (backing files, extents) in DIR, too; repeatable;
                            of images on servers a URL
  -U, --force-share         serve images that another program has open for writing, too
      --parent CHILD=PATH   the parent of the image CHILD (path, or file name alone) is PATH;
                            repeatable
      --reader NAME         who reads the images: 'own' (default), or 'libyal' (libqcow, libvhdi)
                            for a second opinion
      --cache-dir DIR       keep what is read of images on servers in the folder DIR, which several
                            underlay-nbd may share
      --cache-size SIZE     of all files in DIR (default '10G', at least '16M', suffixes K, M, G)
      --cache-immutable PATTERN
                            the content of images whose URI has PATTERN (*, ?, []) never changes,
                            so that it may be kept without a strong ETag; repeatable
      --prefetch WHAT       fetch images on servers before they are read: 'all' of them, or 'boot':
                            what was read in the first minute when they were served last
      --prefetch-rate SIZE  bytes a second for that (default '32M', suffixes K, M, G)
      --cluster-cache SIZE  memory for unpacked clusters (default '64M', suffixes K, M, G)
      --table-cache SIZE    memory for tables of images (default '32M', suffixes K, M, G)
      --threads NUM         threads that serve clients (default '0', one for each processor)
      --poll MICROSECONDS   look for requests for up to this time, at most 1000, before a thread
                            sleeps, while they come that soon: latency for CPU time (default '0')
      --on-error MODE       what becomes of reads of the image that fail for a reason that may pass:
                            'eio' (default): an error, after a few tries within two seconds; 'hold':
                            they are tried again until they succeed
      --log TARGET          where the log goes: 'stderr', 'journal' (systemd's, with fields), 'auto'
                            (default): to the journal when standard error goes there anyway
      --metrics ADDRESS     answer GET /metrics (Prometheus) at HOST:PORT or the unix socket PATH
      --slow-requests MS    log requests that take MS milliseconds or longer (default '0', none)
      --handover PATH       listen on the unix socket PATH for a successor, which takes over all
                            clients without their notice
      --take-over PATH      take over the clients and listening sockets (instead of -k, -b, -p) of
                            the server that runs with --handover PATH, which then exits

Encryption:
      --tls-creds=ID        encrypt with the credentials ID: --object tls-creds-x509,id=ID,
                            dir=FOLDER,endpoint=server[,verify-peer=no][,priority=][,passwordid=],
                            or tls-creds-psk,id=ID,dir=FOLDER,endpoint=server
      --tls-authz=ID        only clients whose certificate --object authz-simple,id=ID,identity=NAME
                            or authz-list-file,id=ID,filename=FILE allows
      --tls MODE            'require' (default with --tls-creds): only encrypted connections; 'on':
                            as the client likes; 'off'

Rights:
      --user USER           become this user, or USER:GROUP, once everything is open (needs root)
      --sandbox MODE        'on' (default): give up, once everything is open, all that serving does
                            not need: files, system calls, capabilities; or 'off'
      --sandbox-test        print what a server with the other options could still do, and exit
      --peer-user USER      only this user (name or number) may connect to Unix sockets; repeatable
      --peer-group GROUP    the same, for whoever is in this group; repeatable

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
                            FILE, for encrypt.key-secret=ID in --image-opts; or what --tls-creds and
                            --tls-authz name; repeatable
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
