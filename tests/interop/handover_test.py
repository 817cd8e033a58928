#!/usr/bin/python3
"""One underlay-nbd takes the place of another while clients are at work.

usage: handover_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import sys
import tempfile
import time
import traceback

import handover_clients
import handover_failures
import protocol_rules
from handover_lab import HandoverLab


def main():
    program, *wanted = sys.argv[1:]
    failed = []
    count = 0
    for name, rule in protocol_rules.rules_of(handover_clients, handover_failures):
        if wanted and not any(part in name for part in wanted):
            continue
        count += 1
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="underlay-handover-", dir="/tmp") as folder:
            try:
                rule(HandoverLab(program, folder))
                print(f"ok   {name}  ({time.monotonic() - started:.1f} s)", flush=True)
            except Exception as error:  # this rule failed; the others are still looked at
                failed.append(name)
                print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
                traceback.print_exc(file=sys.stdout)
    print(f"{count} rules, {len(failed)} failed")
    if failed or count == 0:
        sys.exit(f"failed: {' '.join(failed)}")


main()
