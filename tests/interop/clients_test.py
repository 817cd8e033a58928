#!/usr/bin/python3
"""The program as its users run it: real clients over TCP and Unix sockets, several exports, folders,
allowed paths, and the budgets that hold for all clients together.

usage: clients_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import sys
import tempfile
import time
import traceback

import clients_budgets
import clients_exports
import clients_network
import protocol_rules
from clients_lab import Lab


def holds(name, rule, program):
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="underlay-clients-") as folder:
        try:
            rule(Lab(program, folder))
            print(f"ok   {name}  ({time.monotonic() - started:.1f} s)", flush=True)
            return True
        except Exception as error:  # this rule failed; the others are still looked at
            print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
            traceback.print_exc(file=sys.stdout)
            return False


def main():
    program, *wanted = sys.argv[1:]
    rules = [(name, rule) for name, rule in protocol_rules.rules_of(
        clients_network, clients_exports, clients_budgets)
        if not wanted or any(part in name for part in wanted)]
    failed = [name for name, rule in rules if not holds(name, rule, program)]
    print(f"{len(rules)} rules, {len(failed)} failed")
    if failed or not rules:
        sys.exit(f"failed: {' '.join(failed)}")


main()
