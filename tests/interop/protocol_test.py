#!/usr/bin/python3
"""The server keeps the rules of the NBD protocol that concern a read-only server.

usage: protocol_test.py NBD_SERVER [RULE...]     RULE: part of a rule's name; only those run
"""
import sys
import tempfile

import protocol_commands
import protocol_handshake
import protocol_limits
import protocol_metacontext
import protocol_rules
import protocol_structured


def main():
    program, *wanted = sys.argv[1:]
    rules = [(name, rule) for name, rule in protocol_rules.rules_of(
        protocol_handshake, protocol_metacontext, protocol_commands, protocol_structured,
        protocol_limits) if not wanted or any(part in name for part in wanted)]
    with tempfile.TemporaryDirectory() as folder:
        failed = protocol_rules.run_rules(protocol_rules.Target(program, folder), rules)
    print(f"{len(rules)} rules, {len(failed)} failed")
    if failed or not rules:
        sys.exit(f"failed: {' '.join(failed)}")


main()
