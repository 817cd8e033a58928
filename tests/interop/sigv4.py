"""AWS Signature Version 4, written from its description (AWS General Reference, "Authenticating
Requests: Using the Authorization Header"), to judge signatures of others and to fill a store."""
import hashlib
import hmac
import http.client
import re
import time
import urllib.parse

EMPTY = hashlib.sha256(b"").hexdigest()


def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signature(secret, scope, when, method, path, query, headers, payload_hash):
    """`scope`: DATE/REGION/SERVICE/aws4_request; `path` and `query` as they are sent; `headers`:
    {lower-case name: value} of those that are signed."""
    lines = [method, path, "&".join(sorted(query.split("&"))) if query else ""]
    lines += [f"{name}:{' '.join(headers[name].split())}" for name in sorted(headers)]
    lines += ["", ";".join(sorted(headers)), payload_hash]
    canonical = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    key = ("AWS4" + secret).encode()
    for word in scope.split("/"):
        key = _hmac(key, word)
    return _hmac(key, "\n".join(["AWS4-HMAC-SHA256", when, scope, canonical])).hex()


def judge(secret, method, target, headers):
    """(access key, region) of a request that was received; fails unless its signature is right.
    `headers`: {lower-case name: value}, all of them."""
    found = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=(.+)/(\d{8}/([^/]+)/s3/aws4_request), ?"
                         r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})",
                         headers["authorization"])
    assert found, headers["authorization"]
    key, scope, region, names, stated = found.groups()
    signed = {name: headers[name] for name in names.split(";")}
    assert "host" in signed and "x-amz-date" in signed, names
    path, _, query = target.partition("?")
    right = signature(secret, scope, headers["x-amz-date"], method, path, query, signed,
                      headers["x-amz-content-sha256"])
    assert stated == right, "the signature is wrong"
    return key, region, set(signed)


def put(host, port, path, content, key, secret):
    """Uploads to a path-style store."""
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{when[:8]}/us-east-1/s3/aws4_request"
    payload = hashlib.sha256(content).hexdigest()
    path = urllib.parse.quote(path, safe="/-._~")
    headers = {"host": f"{host}:{port}", "x-amz-content-sha256": payload, "x-amz-date": when}
    sign = signature(secret, scope, when, "PUT", path, "", headers, payload)
    headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={key}/{scope},"
                                f"SignedHeaders={';'.join(sorted(headers))},Signature={sign}")
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request("PUT", path, body=content, headers=headers)
        reply = connection.getresponse()
        body = reply.read()
        assert reply.status == 200, (reply.status, body)
    finally:
        connection.close()


def prove():
    """Against the values that AWS publishes: the example "GET Object" of "Signature Calculations for
    the Authorization Header", and "get-vanilla-query-order-key-case" of the test suite."""
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    got = signature(secret, "20130524/us-east-1/s3/aws4_request", "20130524T000000Z", "GET",
                    "/test.txt", "", {"host": "examplebucket.s3.amazonaws.com",
                                      "range": "bytes=0-9", "x-amz-content-sha256": EMPTY,
                                      "x-amz-date": "20130524T000000Z"}, EMPTY)
    assert got == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41", got
    secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    got = signature(secret, "20150830/us-east-1/service/aws4_request", "20150830T123600Z", "GET",
                    "/", "Param2=value2&Param1=value1",
                    {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z"}, EMPTY)
    assert got == "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500", got
