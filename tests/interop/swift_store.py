"""OpenStack Swift with its S3 middleware: a real store that speaks S3, on loopback, with one device
and one replica.

    with swift(folder) as store:
        store.put("bucket", "key", content)
        ... store.environment() ...

As a program, it is all of Swift's servers: swift_store.py FOLDER ROLE PORT... (the Debian packages'
programs read /etc/swift alone, and each imports all of Swift anew).
"""
import contextlib
import ctypes
import os
import pwd
import signal
import sys

KEY, SECRET = "test:tester", "testing"  # of tempauth; the key has a colon

ROLES = ["account", "container", "object"]
STARTING = 90  # seconds: much Python, and the machine may have other things to do

SWIFT_CONF = "[swift-hash]\nswift_hash_path_suffix = underlay\n"

BACKEND = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
fallocate_reserve = 0
disable_fallocate = true
[pipeline:main]
pipeline = {role}-server
[app:{role}-server]
use = egg:swift#{role}
"""

PROXY = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors cache listing_formats s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
storage_domain = localhost
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""


def write(path, text):
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)


class Store:
    def __init__(self, port):
        self.port = port
        self.endpoint = f"http://127.0.0.1:{port}"

    def put(self, bucket, key="", content=b""):
        import sigv4
        sigv4.put("127.0.0.1", self.port, f"/{bucket}/{key}" if key else f"/{bucket}", content, KEY,
                  SECRET)

    def environment(self, **more):
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET, **more}


@contextlib.contextmanager
def swift(folder):
    import harness
    user = pwd.getpwuid(os.geteuid()).pw_name
    home = os.path.join(folder, "swift")
    os.makedirs(os.path.join(home, "devices", "d1"))
    write(os.path.join(home, "swift.conf"), SWIFT_CONF)
    ports = {role: harness.free_port() for role in [*ROLES, "proxy", "memcached"]}
    for role in ROLES:
        write(os.path.join(home, role + ".conf"),
              BACKEND.format(role=role, port=ports[role], user=user, folder=home))
    write(os.path.join(home, "proxy.conf"),
          PROXY.format(port=ports["proxy"], user=user, folder=home, memcached=ports["memcached"]))
    words = [word for role in [*ROLES, "proxy"] for word in (role, ports[role])]
    command = ["/usr/bin/python3", os.path.abspath(__file__), home, *words]
    with contextlib.ExitStack() as running:
        running.enter_context(harness.start(
            ["memcached", "-l", "127.0.0.1", "-p", ports["memcached"], "-U", "0", "-u", user],
            ports["memcached"]))
        servers = harness.Server(command, ports["proxy"])
        running.callback(servers.close)

        def ready():
            if not servers.running():
                servers.fail("Swift does not start")
            return all(harness.listens(ports[role]) for role in [*ROLES, "proxy"])
        harness.wait_for(ready, STARTING, "Swift listens")
        yield Store(ports["proxy"])


def make_rings(folder, places):
    """`places`: {role: port}."""
    from swift.common.ring import RingBuilder
    for role, port in places.items():
        builder = RingBuilder(2, 1, 0)
        builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1",
                         "port": int(port), "device": "d1", "meta": "",
                         "replication_ip": "127.0.0.1", "replication_port": int(port)})
        builder.rebalance()
        builder.get_ring().save(os.path.join(folder, role + ".ring.gz"))


def serve(role, folder):
    from swift.common.wsgi import run_wsgi
    more = {}
    if role == "object":
        from swift.obj.server import global_conf_callback
        more["global_conf_callback"] = global_conf_callback
    return run_wsgi(os.path.join(folder, role + ".conf"), role + "-server", **more)


def serve_all(folder, places):
    # Before other modules of Swift look at its folder.
    import swift.common.utils as utils
    utils.set_swift_dir(folder)
    make_rings(folder, {role: places[role] for role in ROLES})
    # Once for all of them.
    import swift.account.server, swift.container.server  # noqa: E401
    import swift.obj.server, swift.proxy.server  # noqa: E401
    for role in places:
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            os._exit(serve(role, folder) or 0)
    # None of them ends by itself.
    return os.waitstatus_to_exitcode(os.wait()[1]) or 1


if __name__ == "__main__":
    sys.exit(serve_all(sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))))
