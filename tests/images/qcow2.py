#!/usr/bin/python3
"""qcow2 images of every kind, by qemu-img and qemu-io, each beside the content it was given."""
import base64
import os
import shutil
import struct

from common import Feature, Manifest, QemuWriter, content, run, write_raw

KIB = 1 << 10
MIB = 1 << 20

FEATURES = (
    Feature("plain", "versions 2 and 3, clusters of 512 bytes to 2 MiB, disks of any size, every "
                     "preallocation: as qemu-img makes them"),
    Feature("zlib", "clusters compressed with zlib (`qemu-img convert -c`)"),
    Feature("zstd", "clusters compressed with zstd (`compression_type=zstd`)"),
    Feature("zeros", "zero clusters, with and without space set aside"),
    Feature("extended-l2", "extended L2 entries: 32 subclusters a cluster (`extended_l2=on`)"),
    Feature("backing", "chains of backing files, qcow2 and raw, longer and shorter than the image"),
    Feature("data-file", "external data files (`data_file`, `data_file_raw`)"),
    Feature("snapshots", "internal snapshots, by id or name (`-l`)"),
    Feature("unclean", "images that were left dirty or marked corrupt, with a warning"),
    Feature("bitmaps", "persistent dirty bitmaps, exported as `qemu:dirty-bitmap:NAME` (`-B`)"),
    Feature("luks", "LUKS encryption: AES in XTS and CBC mode, plain64 (`--object secret`, "
                    "`encrypt.key-secret`)"),
    Feature("aes", "AES encryption (`encrypt.format=aes`)",
            "its passphrase cannot be checked, so a wrong one would give wrong data; convert it "
            "with qemu-img"),
    Feature("luks-ciphers", "LUKS with other ciphers than AES, or with ESSIV",
            "only ciphers of wide use are served; convert it with qemu-img"),
    Feature("no-secret", "encrypted images without their passphrase, or with a wrong one",
            "their data cannot be told; say `--object secret` and `encrypt.key-secret`"),
    Feature("unknown-feature", "incompatible features of later QEMUs",
            "what they change is not known; convert it with qemu-img"),
    Feature("protocols", "backing and data files that a protocol names (`json:`, `nbd://`, `http://`)",
            "an image's protocols are never followed; name a file"),
    Feature("unstated", "raw backing files whose format the image does not state",
            "a guest could make it any format; state it with `qemu-img rebase -u -F`"),
    Feature("truncated", "files that have lost their end",
            "their data is not whole; copy them anew"),
    Feature("overlapping", "structures of the image that overlap",
            "it is damaged; `qemu-img check` tells more"),
    Feature("loop", "images that stand in their own chain of backing files",
            "they have no content; rebase one of them"),
)

manifest = Manifest("qcow2", FEATURES)

# Where "incompatible_features" lies in the header, and two of its bits.
INCOMPATIBLE = 72
DIRTY, CORRUPT = 1, 2


def create(name, size, options="", backing=None, backing_format=None):
    path = manifest.path(name + ".qcow2")
    command = ["qemu-img", "create", "-q", "-f", "qcow2"]
    if options:
        command += ["-o", options]
    if backing:
        command += ["-b", os.path.basename(backing), "-F", backing_format]
    run(*command, path, size)
    return path


def convert(name, data, options="", flags=()):
    source = write_raw(manifest.path(name + ".source"), data)
    path = manifest.path(name + ".qcow2")
    command = ["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", *flags]
    if options:
        command += ["-o", options]
    run(*command, source, path)
    return path


def writer_of(path, truth):
    return QemuWriter("qcow2", path, truth)


def add(feature, name, path, truth, args=(), oracles=("qemu", "libqcow")):
    raw = write_raw(manifest.path(name + ".raw"), truth)
    manifest.add("qcow2-" + name, path, raw, ["-f", "qcow2", *args], oracles, feature=feature)


def add_refused(feature, name, path, words, args=("-f", "qcow2")):
    manifest.add_refused("qcow2-" + name, path, words, args, feature=feature)


def set_incompatible(path, bits):
    with open(path, "r+b") as image:
        image.seek(INCOMPATIBLE)
        value = struct.unpack(">Q", image.read(8))[0] | bits
        image.seek(INCOMPATIBLE)
        image.write(struct.pack(">Q", value))


def plain_images():
    for compat, version in (("0.10", "v2"), ("1.1", "v3")):
        for cluster in (512, 4 * KIB, 64 * KIB, 2 * MIB):
            name = f"plain-{version}-{cluster}"
            data = content(5 * MIB + 3 * KIB, cluster)
            add("plain", name, convert(name, data, f"compat={compat},cluster_size={cluster}"), data)
    # The last cluster is cut, and so is the last L2 table.
    for size in (512, 1000448, 1000448 + 7 * 512):
        data = content(size, size)
        name = f"odd-size-{size}"
        add("plain", name, convert(name, data), data)
    for mode in ("metadata", "falloc", "full"):
        name = f"preallocated-{mode}"
        writer = writer_of(create(name, 4 * MIB, f"preallocation={mode}"), bytes(4 * MIB))
        add("plain", name, writer.path, writer.write(100 * KIB, 200 * KIB, 17).done())
    add("plain", "empty", create("empty", 3 * MIB), bytes(3 * MIB))


def compressed_images():
    for codec in ("zlib", "zstd"):
        oracles = ("qemu", "libqcow") if codec == "zlib" else ("qemu",)
        for cluster in (512, 4 * KIB, 64 * KIB, 2 * MIB):
            name = f"{codec}-{cluster}"
            data = content((1 if cluster == 512 else 6) * MIB + 1536, cluster + 1)
            options = f"compression_type={codec},cluster_size={cluster}"
            add(codec, name, convert(name, data, options, ["-c"]), data, oracles=oracles)
        # Plain clusters and both kinds of zero clusters in between.
        data = content(4 * MIB, 5)
        path = convert(f"{codec}-mixed", data, f"compression_type={codec}", ["-c"])
        writer = writer_of(path, data).write(70 * KIB, 3 * KIB, 1).write(MIB, 300 * KIB, 2)
        writer.zero(2 * MIB, 128 * KIB).zero(3 * MIB, 64 * KIB, "-u")
        add(codec, f"{codec}-mixed", path, writer.done(), oracles=("qemu",))
    data = content(2 * MIB, 6)
    add("zlib", "zlib-v2", convert("zlib-v2", data, "compat=0.10", ["-c"]), data)


def zero_images():
    base = content(4 * MIB, 7)
    backing = write_raw(manifest.path("zero-base.img"), base)
    path = create("zeros", 4 * MIB, backing=backing, backing_format="raw")
    writer = writer_of(path, base).write(0, 512 * KIB, 3).zero(64 * KIB, 128 * KIB)
    writer.zero(256 * KIB, 64 * KIB, "-u").zero(MIB, MIB).zero(3 * MIB + 512, 1024)
    add("zeros", "zeros", path, writer.done(), oracles=("qemu",))


def extended_images():
    for cluster in (16 * KIB, 64 * KIB, 2 * MIB):
        options = f"extended_l2=on,cluster_size={cluster}"
        name = f"extended-{cluster}"
        data = content(5 * MIB, cluster + 2)
        path = convert(name, data, options)
        part = cluster // 32
        writer = writer_of(path, data).write(3 * part, part, 4).zero(5 * part, 2 * part)
        add("extended-l2", name, path, writer.done(), oracles=("qemu",))

        # Subclusters that are not allocated are the backing file's.
        base = content(4 * MIB, cluster + 3)
        backing = write_raw(manifest.path(name + "-base.img"), base)
        path = create(name + "-overlay", 5 * MIB, options, backing, "raw")
        writer = writer_of(path, base + bytes(MIB))
        for at in range(0, 3 * cluster, 4 * part):
            if at + part <= 5 * MIB:
                writer.write(at, part, 5)
        writer.zero(part, part).zero(9 * part, 2 * part)
        # A cluster without data whose parts are zeros, and a write across clusters.
        if 20 * cluster < 4 * MIB:
            writer.zero(10 * cluster, part).write(11 * cluster + 31 * part, 2 * part, 6)
        add("extended-l2", name + "-overlay", path, writer.done(), oracles=("qemu",))

        path = convert(name + "-zlib", data, options, ["-c"])
        writer = writer_of(path, data).write(4 * part, part, 7)
        add("extended-l2", name + "-zlib", path, writer.done(), oracles=("qemu",))


def chains():
    base = content(3 * MIB, 11)
    raw = write_raw(manifest.path("chain-base.img"), base)
    for kind, size in (("equal", 3 * MIB), ("longer", 5 * MIB + 512), ("shorter", 2 * MIB - 512)):
        truth = (base + bytes(size))[:size]
        path = create(f"backed-raw-{kind}", size, "", raw, "raw")
        writer = writer_of(path, truth).write(MIB + 512, 70 * KIB, 8)
        add("backing", f"backed-raw-{kind}", path, writer.done(), oracles=("qemu",))

    # A base whose length is no multiple of a sector: its last sector is filled up with zeros.
    odd = write_raw(manifest.path("chain-odd.img"), content(MIB - 100, 12))
    with open(odd, "rb") as source:
        truth = source.read() + bytes(MIB + 100)
    add("backing", "backed-raw-odd", create("backed-raw-odd", 2 * MIB, "", odd, "raw"), truth,
        oracles=("qemu",))

    bottom = convert("chain-1", base, "cluster_size=4k", ["-c"])
    middle = create("chain-2", 4 * MIB, "", bottom, "qcow2")
    writer = writer_of(middle, base + bytes(MIB)).write(512 * KIB, 512 * KIB, 9)
    truth = writer.zero(2 * MIB, 64 * KIB).write(3 * MIB + 4 * KIB, 4 * KIB, 10).done()
    add("backing", "chain-2", middle, truth, oracles=("qemu",))
    top = create("chain-3", 2 * MIB + 100 * KIB, "compat=0.10", middle, "qcow2")
    writer = writer_of(top, truth[:2 * MIB + 100 * KIB]).write(600 * KIB, KIB, 11)
    add("backing", "chain-3", top, writer.done(), oracles=("qemu",))


def data_files():
    for name, extra in (("data-file", ""), ("data-file-raw", ",data_file_raw=on")):
        data = manifest.path(name + ".data")
        path = create(name, 4 * MIB, f"data_file={data}{extra}")
        writer = writer_of(path, bytes(4 * MIB)).write(0, 100 * KIB, 12).write(MIB + 512, MIB, 13)
        writer.zero(MIB + 64 * KIB, 64 * KIB).zero(3 * MIB, 64 * KIB)
        add("data-file", name, path, writer.done(), oracles=("qemu",))
    base = content(4 * MIB, 13)
    backing = write_raw(manifest.path("data-file-base.img"), base)
    options = f"data_file={manifest.path('data-file-overlay.data')},extended_l2=on"
    path = create("data-file-overlay", 4 * MIB, options, backing, "raw")
    writer = writer_of(path, base).write(512, 4 * KIB, 14).write(2 * MIB, 200 * KIB, 15)
    add("data-file", "data-file-overlay", path, writer.zero(4 * KIB, 4 * KIB).done(), oracles=("qemu",))


def snapshots():
    truth = content(2 * MIB, 14)
    for compat in ("0.10", "1.1"):
        path = convert(f"snapshots-{compat}", truth, f"compat={compat}")
        states = {}
        states["first"] = writer_of(path, truth).write(0, 70 * KIB, 16).done()
        run("qemu-img", "snapshot", "-c", "first", path)
        # Its name is the other one's id: the id is meant.
        states["1"] = writer_of(path, states["first"]).write(MIB, 70 * KIB, 17).done()
        run("qemu-img", "snapshot", "-c", "1", path)
        active = states["1"]
        if compat == "1.1":
            run("qemu-img", "resize", "-q", "-f", "qcow2", path, "3M")
            active += bytes(MIB)
        active = writer_of(path, active).write(512 * KIB, MIB, 18).done()
        name = f"snapshots-{compat}"
        add("snapshots", name + "-active", path, active)
        # After a resize qemu shows a snapshot at the active disk's size, not at its own.
        oracles = ("qemu",) if len(active) == len(truth) else ()
        add("snapshots", name + "-by-name", path, states["first"], ["-l", "first"], oracles)
        add("snapshots", name + "-by-id", path, states["1"], ["-l", "2"], oracles)
        add("snapshots", name + "-id-first", path, states["first"], ["-l", "1"], oracles)


def unclean_images():
    data = content(2 * MIB, 15)
    path = convert("dirty", data, "lazy_refcounts=on")
    set_incompatible(path, DIRTY)
    add("unclean", "dirty", path, data, oracles=("qemu",))
    path = convert("corrupt", data)
    set_incompatible(path, CORRUPT)
    add("unclean", "corrupt", path, data, oracles=("qemu",))



def secret(name, passphrase, encoding="raw"):
    """Options that make a passphrase file the secret `name`."""
    path = manifest.path(name + ".key")
    data = passphrase.encode()
    with open(path, "wb") as key:
        key.write(base64.encodebytes(data) if encoding == "base64" else data)
    return ["--object", f"secret,id={name},file={path},format={encoding}"]


def with_options(path, **options):
    """The image as --image-opts takes it; `a__b_c` is a.b-c."""
    words = [f"{key.replace('__', '.').replace('_', '-')}={value}"
             for key, value in options.items()]
    return ",".join(["driver=qcow2", *words, f"file.filename={path}"])


# Few iterations, for tests that shall not take long.
LUKS = "encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret="


def run_timed(*command):
    """qemu-img measures how fast it derives keys; on a busy machine it may fail to."""
    for _ in range(50):
        try:
            return run(*command)
        except RuntimeError as error:
            if "accurate CPU usage" not in str(error):
                raise
    return run(*command)


def create_encrypted(name, size, options, secrets):
    path = manifest.path(name + ".qcow2")
    run_timed("qemu-img", "create", "-q", *secrets, "-f", "qcow2", "-o", options, path, size)
    return path


def copied(path, name):
    """Making LUKS headers takes long."""
    return shutil.copy(path, manifest.path(name + ".qcow2"))


def add_encrypted(name, writer, secrets, **options):
    """What `writer` says is written through qemu-io, which then has to open the image as we do."""
    image = with_options(writer.path, **options)
    words = [word for command in writer.commands for word in ("-c", command)]
    run("qemu-io", *secrets, "--image-opts", *words, image)
    raw = write_raw(manifest.path(name + ".raw"), writer.truth)
    manifest.add("qcow2-" + name, image, raw, [*secrets, "--image-opts"], ("qemu",),
                 feature="luks")


def scattered(path, truth):
    return (writer_of(path, truth).write(0, 70 * KIB, 21).write(MIB + 512, 300 * KIB, 22)
            .zero(MIB + 128 * KIB, 64 * KIB).write(3 * MIB, 512, 23))


def encrypted_images():
    size = 4 * MIB
    key = secret("sec0", "open sesame")
    empty = create_encrypted("luks-empty", size, LUKS + "sec0", key)
    add_encrypted("luks", scattered(copied(empty, "luks"), bytes(size)), key,
                  encrypt__format="luks", encrypt__key_secret="sec0")
    # QEMU writes compressed clusters as they are, without encryption.
    writer = writer_of(copied(empty, "luks-compressed"), bytes(size))
    writer.write(64 * KIB, 64 * KIB, 24, "-c").write(0, 4 * KIB, 25)
    add_encrypted("luks-compressed", writer, key, encrypt__key_secret="sec0")
    path = create_encrypted("luks-extended", size, LUKS + "sec0,extended_l2=on,cluster_size=16k",
                            key)
    add_encrypted("luks-extended", scattered(path, bytes(size)), key, encrypt__key_secret="sec0")

    keys = [*key, *secret("sec1", "pass\n word \u00e9", "base64")]
    base = create_encrypted("luks-cbc", size, LUKS + "sec1,encrypt.cipher-alg=aes-128,"
                            "encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain64,cluster_size=4k",
                            keys)
    writer = scattered(base, bytes(size))
    add_encrypted("luks-cbc", writer, keys, encrypt__key_secret="sec1")
    path = copied(empty, "luks-overlay")
    run("qemu-img", "rebase", "-u", *keys, "--image-opts", "-b", "luks-cbc.qcow2", "-F", "qcow2",
        with_options(path, encrypt__key_secret="sec0"))
    writer = writer_of(path, writer.truth).write(2 * MIB, 64 * KIB, 26)
    add_encrypted("luks-overlay", writer, keys, encrypt__key_secret="sec0",
                  backing__encrypt__key_secret="sec1")
    encrypted_refused(empty, key)


def encrypted_refused(locked, key):
    wrong = secret("wrong", "open sesame\n")
    add_refused("no-secret", "luks-no-secret", locked, "crypt_method is 2, LUKS")
    add_refused("no-secret", "luks-wrong-secret", with_options(locked, encrypt__key_secret="wrong"),
                "opens none of its LUKS key slots", [*wrong, "--image-opts"])
    with open(locked, "rb") as image:
        mode = image.read(MIB).index(b"LUKS\xba\xbe") + 40
    path = patch(copied(locked, "luks-essiv"), mode, b"cbc-essiv:sha256\0")
    add_refused("luks-ciphers", "luks-essiv", with_options(path, encrypt__key_secret="sec0"),
                "aes-cbc-essiv:sha256", [*key, "--image-opts"])
    path = create_encrypted("aes", MIB, "encrypt.format=aes,encrypt.key-secret=sec0", key)
    add_refused("aes", "aes", with_options(path, encrypt__key_secret="sec0"),
                "qemu-img convert --object", [*key, "--image-opts"])


def bitmaps():
    truth = content(3 * MIB, 16)
    path = convert("bitmaps", truth)
    for name, granularity in (("fine", 512), ("coarse", 1 << 31)):
        run("qemu-img", "bitmap", "--add", "-g", granularity, path, name)
    truth = writer_of(path, truth).write(MIB, 70 * KIB, 27).done()
    add("bitmaps", "bitmaps", path, truth)


def patch(path, offset, data):
    with open(path, "r+b") as image:
        image.seek(offset)
        image.write(data)
    return path


def refused_images():
    data = content(2 * MIB, 17)
    path = convert("unknown-feature", data)
    set_incompatible(path, 1 << 40)
    add_refused("unknown-feature", "unknown-feature", path, "incompatible feature bit 40")
    for name, backing in (("json", "json:{\"driver\":\"raw\"}"), ("nbd", "nbd://localhost/x")):
        path = manifest.path(f"protocol-{name}.qcow2")
        run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", path, MIB)
        add_refused("protocols", f"protocol-{name}", path, "protocols are never followed")
    write_raw(manifest.path("unstated.img"), data)
    path = manifest.path("unstated.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "unstated.img", "-F", "raw", path, MIB)
    # The name of the extension that states the backing format becomes one that nobody knows.
    with open(path, "rb") as image:
        at = image.read(4096).index(struct.pack(">I", 0xe2792aca))
    add_refused("unstated", "unstated", patch(path, at, b"none"), "qemu-img rebase -u -F")

    path = convert("truncated", data)
    os.truncate(path, os.path.getsize(path) // 2)
    add_refused("truncated", "truncated", path, "truncated")
    path = convert("truncated-tables", data)
    os.truncate(path, 100 * KIB)
    add_refused("truncated", "truncated-tables", path, "truncated")
    # "refcount_table_offset" becomes "l1_table_offset".
    path = convert("overlapping", data)
    with open(path, "rb") as image:
        l1_table_offset = image.read(48)[40:]
    add_refused("overlapping", "overlapping", patch(path, 48, l1_table_offset), "overlap")

    path = create("loop-1", MIB)
    create("loop-2", MIB, "", path, "qcow2")
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "loop-2.qcow2", "-F", "qcow2", path)
    add_refused("loop", "loop", path, "stands twice in its own chain")


plain_images()
compressed_images()
zero_images()
extended_images()
chains()
data_files()
snapshots()
unclean_images()
encrypted_images()
bitmaps()
refused_images()
