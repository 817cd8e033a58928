"""Runs rules that each have a lab and a folder of their own."""
import concurrent.futures
import sys
import tempfile
import time
import traceback

import protocol_rules


def holds(name, rule, make_lab, program):
    started = time.monotonic()
    # Beneath /tmp because the path of a Unix socket may not be long.
    with tempfile.TemporaryDirectory(prefix="underlay-rule-", dir="/tmp") as folder:
        try:
            rule(make_lab(program, folder))
            print(f"ok   {name}  ({time.monotonic() - started:.1f} s)", flush=True)
            return True
        except Exception as error:  # this rule failed; the others are still looked at
            print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
            traceback.print_exc(file=sys.stdout)
            return False


def main(make_lab, *modules, at_once=1):
    """The command line PROGRAM [RULE...]. Ends the process with a failure when a rule fails, and when
    there is none. RULE: part of a rule's name. At most `at_once` rules at the same time, each in a
    process of its own when these are several."""
    program, *wanted = sys.argv[1:]
    rules = [(name, rule) for name, rule in protocol_rules.rules_of(*modules)
             if not wanted or any(part in name for part in wanted)]
    if at_once == 1:
        results = [holds(name, rule, make_lab, program) for name, rule in rules]
    else:
        with concurrent.futures.ProcessPoolExecutor(at_once) as pool:
            running = [pool.submit(holds, name, rule, make_lab, program) for name, rule in rules]
            results = [one.result() for one in running]
    failed = [name for (name, _), held in zip(rules, results) if not held]
    print(f"{len(rules)} rules, {len(failed)} failed")
    if failed or not rules:
        sys.exit(f"failed: {' '.join(failed)}")
