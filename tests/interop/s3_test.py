#!/usr/bin/python3
"""Images on S3 stores: requests are signed right, with keys from the environment, a file or a command,
which are renewed; and a real store, OpenStack Swift, serves images and chains of them.

usage: s3_test.py UNDERLAY_NBD UNDERLAY_IMG HTTP_SOURCE_DUMP [RULE...]
"""
import json
import os
import random
import subprocess
import sys
import time

import harness
import sigv4
import swift_store
from http_servers import faulty

KIB, MIB = 1 << 10, 1 << 20
CONTENT = random.Random(4).randbytes(MIB + 17)
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "session/token+of=some=length"


def environment(**more):
    """Without settings of whoever runs the test."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith("AWS_") and not name.lower().endswith("_proxy")}
    return {**kept, "HOME": "/nonexistent", **more}


def run(*command, env):
    done = subprocess.run(list(map(str, command)), capture_output=True, timeout=60,
                          stdin=subprocess.DEVNULL, env=env)
    errors = done.stderr.decode()
    assert not harness.SANITIZER_REPORT.search(errors), errors
    for secret in (SECRET, TOKEN, swift_store.SECRET):
        assert secret not in errors, errors
    return done.returncode, done.stdout, errors


def read(name, env, unit=100_000):
    return run(DUMP, "read", name, 20_000, 2, unit, env=env)


def read_all(name, env, content=CONTENT):
    status, out, errors = read(name, env)
    assert status == 0, errors
    assert out == content, "other bytes"


def refused(result, *words):
    status, out, errors = result
    assert status == 1 and out == b"" and errors.count("\n") == 1, (status, errors)
    for word in words:
        assert word in errors, (word, errors)


class Judge:
    """A store that answers what is signed right, and notes the keys and what else it saw."""

    def __init__(self, secrets, content=CONTENT):
        self.secrets, self.content = secrets, content
        self.keys, self.signed, self.regions, self.places = [], [], [], []
        self.failure = None

    def __call__(self, request):
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            key = headers["authorization"].split("Credential=")[1].split("/")[0]
            if key not in self.secrets:
                return request.refuse(403, {}, b"<Error><Code>ExpiredToken</Code></Error>")
            _, region, signed = sigv4.judge(self.secrets[key], "GET", request.path, headers)
        except (AssertionError, KeyError, IndexError) as failure:
            self.failure = failure
            return request.refuse(400)
        self.keys.append(key)
        self.regions.append(region)
        self.signed.append(signed)
        self.places.append((headers["host"].rpartition(":")[0], request.path))
        return request.reply(self.content)

    def check(self):
        assert self.failure is None, repr(self.failure)
        assert self.keys, "nothing was asked for"


def keys(key="AKIDEXAMPLE", secret=SECRET, **more):
    return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, **more}


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)


# ---- signatures

def rule_our_judge_knows_the_published_values(_):
    sigv4.prove()


def rule_requests_are_signed_right(_):
    names = {"s3://bucket/disk.raw": "/bucket/disk.raw",
             "s3://bucket/a b/c+d=e&f~g.raw": "/bucket/a%20b/c%2Bd%3De%26f~g.raw",
             "s3://bucket/100%25.raw?x": "/bucket/100%2525.raw%3Fx",
             "s3://bucket/\u00e4/../x": "/bucket/%C3%A4/../x"}
    for key in ("AKIDEXAMPLE", "test:tester"):
        judge = Judge({key: SECRET})
        with faulty(judge) as server:
            env = environment(AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.port}", **keys(key))
            for name, place in names.items():
                judge.places.clear()
                read_all(name, env)
                assert {one for _, one in judge.places} == {place}, (name, judge.places)
            judge.check()
            assert set(judge.regions) == {"us-east-1"}
            # Only who has the version that was opened may answer.
            assert any("if-match" in one for one in judge.signed), judge.signed


def rule_region_endpoint_and_style_are_as_stated(folder):
    judge = Judge({"AKIDEXAMPLE": SECRET})
    with faulty(judge) as server:
        host = f"http://localhost:{server.port}"
        config = os.path.join(folder, "config")
        write(config, f"[default]\nregion = wrong\n[profile lab]\nregion = eu-north-1\n"
              f"endpoint_url = {host}/\ns3 =\n  addressing_style = virtual\n")
        read_all("s3://bucket/disk", environment(AWS_CONFIG_FILE=config, AWS_PROFILE="lab",
                                                 **keys(AWS_SESSION_TOKEN=TOKEN)))
        judge.check()
        assert set(judge.regions) == {"eu-north-1"}, judge.regions
        assert set(judge.places) == {("bucket.localhost", "/disk")}, judge.places
        assert all("x-amz-security-token" in one for one in judge.signed), judge.signed
        judge.places.clear()
        read_all("s3://bucket/disk", environment(
            AWS_CONFIG_FILE=config, AWS_PROFILE="lab", AWS_REGION="mars-1",
            UNDERLAY_S3_ADDRESSING="path", **keys()))
        assert set(judge.places) == {("localhost", "/bucket/disk")}, judge.places
        assert judge.regions[-1] == "mars-1"
        wrong = environment(AWS_ENDPOINT_URL=host, UNDERLAY_S3_ADDRESSING="sideways", **keys())
        refused(read("s3://bucket/disk", wrong), "sideways")
        for name in ("s3://bucket", "s3://bucket/", "s3:///disk", "s3://user:x@bucket/disk"):
            refused(read(name, environment(**keys())), "s3://BUCKET/KEY")


def rule_a_stores_redirect_is_not_followed(_):
    seen = []

    def answer(request):
        seen.append(request.path)
        request.refuse(307, {"Location": f"http://127.0.0.1:{server.port}/elsewhere"})
    with faulty(answer) as server:
        env = environment(AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.port}",
                          **keys(AWS_SESSION_TOKEN=TOKEN))
        refused(read("s3://bucket/disk", env), "307", "region")
    assert seen == ["/bucket/disk"], seen


# ---- keys

def rule_keys_come_from_the_environment_a_file_or_a_command(folder):
    secrets = {"FROMFILE": "one", "FROMPROFILE": "two", "FROMCONFIG": "three", "FROMCOMMAND": "four",
               "FROMENVIRONMENT": "five"}
    judge = Judge(secrets)
    with faulty(judge) as server:
        home = os.path.join(folder, "home")
        common = {"HOME": home, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"}
        write(home + "/.aws/credentials",
              "# of tests\n[default]\naws_access_key_id = FROMFILE\naws_secret_access_key=one\n\n"
              "[lab]\naws_access_key_id=FROMPROFILE\naws_secret_access_key = two\n")
        answer = {"Version": 1, "AccessKeyId": "FROMCOMMAND", "SecretAccessKey": "four"}
        write(home + "/.aws/config",
              "[profile config]\naws_access_key_id = FROMCONFIG\naws_secret_access_key = three\n"
              f"[profile command]\ncredential_process = echo '{json.dumps(answer)}'\n"
              "[profile fails]\ncredential_process = exit 3\n"
              "[profile talks]\ncredential_process = echo nonsense\n"
              "[profile much]\ncredential_process = yes\n")
        cases = [({}, "FROMFILE"), ({"AWS_PROFILE": "lab"}, "FROMPROFILE"),
                 ({"AWS_PROFILE": "config"}, "FROMCONFIG"),
                 ({"AWS_PROFILE": "command"}, "FROMCOMMAND"),
                 (keys("FROMENVIRONMENT", "five"), "FROMENVIRONMENT")]
        for more, key in cases:
            judge.keys.clear()
            read_all("s3://bucket/disk", environment(**{**common, **more}))
            assert set(judge.keys) == {key}, (key, judge.keys)
        for profile, why in (("fails", "exit status 3"), ("talks", "no JSON"), ("much", "65536")):
            env = environment(**{**common, "AWS_PROFILE": profile})
            refused(read("s3://bucket/disk", env), "credential_process", why)
        only_one = environment(**{**common, "AWS_ACCESS_KEY_ID": "x"})
        refused(read("s3://bucket/disk", only_one), "AWS_SECRET_ACCESS_KEY")
        judge.check()


def counting_command(folder, seconds):
    """A config file whose command makes keys KEY0, KEY1... that live so long; their secret is the
    key."""
    script = os.path.join(folder, "keys.py")
    write(script, f"""
import datetime, json, os
path = {folder!r} + "/count"
count = int(open(path).read()) if os.path.exists(path) else 0
open(path, "w").write(str(count + 1))
end = datetime.datetime.utcnow() + datetime.timedelta(seconds={seconds})
print(json.dumps({{"Version": 1, "AccessKeyId": f"KEY{{count}}", "SecretAccessKey": f"KEY{{count}}",
                  "SessionToken": "t", "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ")}}))
""")
    config = os.path.join(folder, "config")
    write(config, f"[default]\ncredential_process = /usr/bin/python3 {script}\n")
    return config


ANY_KEY = {f"KEY{i}": f"KEY{i}" for i in range(100)}


def rule_keys_are_renewed_before_they_end_also_in_the_sandbox(folder):
    judge = Judge(ANY_KEY, random.Random(6).randbytes(8 * MIB))
    with faulty(judge) as server:
        env = environment(AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.port}",
                          AWS_CONFIG_FILE=counting_command(folder, 4))
        socket = os.path.join(folder, "control")
        with harness.serve(["-e", "0", "--control", socket, "-f", "raw", "s3://bucket/disk.raw"],
                           program=NBD, env=env) as nbd:
            # Another one, with the same process for its keys.
            status, out, errors = run(NBD, "ctl", "--socket", socket, "add", "name=two",
                                      "format=raw", "image=s3://bucket/two.raw", env=env)
            assert status == 0, out.decode() + errors + nbd.stderr()
            start = time.monotonic()
            while time.monotonic() - start < 30 and len(set(judge.keys)) < 3:
                status, _, errors = harness.run(["nbdcopy", nbd.uri, "null:"])
                assert status == 0, errors + nbd.stderr()
                time.sleep(0.2)
        judge.check()
        assert len(set(judge.keys)) >= 3, set(judge.keys)


def rule_keys_that_a_store_refuses_are_renewed_once(folder):
    judge = Judge({"KEY1": "KEY1"})
    with faulty(judge) as server:
        env = environment(AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.port}",
                          AWS_CONFIG_FILE=counting_command(folder, 3600))
        read_all("s3://bucket/disk", env)
        assert set(judge.keys) == {"KEY1"}
        # And not for ever.
        judge.secrets.clear()
        refused(read("s3://bucket/disk", env), "403", "ExpiredToken")
        assert len(server.requests) < 20
        judge.check()


# ---- a real store

def make_chain(folder):
    raw = os.path.join(folder, "raw")
    with open(raw, "wb") as out:
        out.write(CONTENT[:MIB])
    for words in (["convert", "-f", "raw", "-O", "qcow2", raw, folder + "/base.qcow2"],
                  ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2",
                   folder + "/child.qcow2"]):
        status, _, errors = harness.run(["qemu-img", *words])
        assert status == 0, errors


def contents_of(path):
    with open(path, "rb") as file:
        return file.read()


def rule_a_real_store_serves_images(folder):
    make_chain(folder)
    with swift_store.swift(folder) as store:
        env = environment(**store.environment())
        store.put("images")
        store.put("images", "dir/a b+c.raw", CONTENT)
        for name in ("base.qcow2", "child.qcow2"):
            store.put("images", "dir/" + name, contents_of(os.path.join(folder, name)))
        read_all("s3://images/dir/a b+c.raw", env)
        virtual = store.environment(AWS_ENDPOINT_URL=f"http://localhost:{store.port}",
                                    UNDERLAY_S3_ADDRESSING="virtual")
        read_all("s3://images/dir/a b+c.raw", environment(**virtual))
        # What is wrong is said, with the store's own word.
        refused(read("s3://images/none", env), "404", "NoSuchKey")
        wrong = environment(**store.environment(AWS_SECRET_ACCESS_KEY="wrong"))
        refused(read("s3://images/none", wrong), "403", "SignatureDoesNotMatch")
        unsigned = environment(AWS_ENDPOINT_URL=store.endpoint)
        refused(read("s3://images/dir/a b+c.raw", unsigned), "no keys", "AWS_ACCESS_KEY_ID")
        # A chain, in all programs.
        url = "s3://images/dir/child.qcow2"
        local = os.path.join(folder, "child.qcow2")
        for words in (["check", url], ["map", url], ["audit", url],
                      ["compare", url, local],
                      ["compare", "--image-opts", f"driver=qcow2,file.driver=s3,file.url={url}",
                       f"driver=qcow2,file.filename={local}"]):
            status, out, errors = run(IMG, *words, env=env)
            assert status == 0, (words, out, errors)
        with harness.serve(["-e", "0", url], program=NBD, env=env) as nbd:
            copy = os.path.join(folder, "copy")
            status, _, errors = harness.run(["nbdcopy", nbd.uri, copy])
            assert status == 0, errors + nbd.stderr()
            assert contents_of(copy) == CONTENT[:MIB]
            # An object that is written anew is another one.
            store.put("images", "dir/base.qcow2", contents_of(local))
            status, _, errors = harness.run(["nbdcopy", nbd.uri, "null:"])
            harness.wait_for(lambda: status != 0 or "changed" in nbd.stderr(), 10, "an error")


def main():
    global NBD, IMG, DUMP
    NBD, IMG, DUMP = sys.argv[1:4]
    harness.run_rules(globals(), sys.argv[4:])


main()
