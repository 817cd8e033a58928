#!/usr/bin/python3
"""What the program does with bad images, changing files, and a system that gives it little.

usage: program_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import sys
import tempfile
import time
import traceback

import program_changes
import program_images
import program_resources
import program_system
import protocol_rules
from program_rules import Lab


def main():
    program, *wanted = sys.argv[1:]
    failed = []
    count = 0
    for name, rule in protocol_rules.rules_of(program_images, program_changes, program_system,
                                              program_resources):
        if wanted and not any(part in name for part in wanted):
            continue
        count += 1
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="underlay-program-") as folder:
            try:
                rule(Lab(program, folder))
                print(f"ok   {name}  ({time.monotonic() - started:.1f} s)", flush=True)
            except Exception as error:  # this rule failed; the others are still looked at
                failed.append(name)
                print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
                traceback.print_exc(file=sys.stdout)
    print(f"{count} rules, {len(failed)} failed")
    if failed or count == 0:
        sys.exit(f"failed: {' '.join(failed)}")


main()
