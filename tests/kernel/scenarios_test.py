#!/usr/bin/python3
"""A scenario that fails is seen to fail, whatever the way, and hides no other.

    scenarios_test.py TEST_KERNEL PROGRAMS
"""
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
REASONS = {
    "a_rule_does_not_hold": "this rule does not hold",
    "the_scenario_itself_breaks": "KeyError",
    "an_io_error_that_nobody_expects": "the kernel reports",
    "other_contents": "differs from",
    "another_size": "the size of",
}
RIGHT = ["right", "right_with_an_io_error", "right_after_devices_were_left"]


def run(*scenarios):
    """Exit status; {scenario: (passed, line)}."""
    done = subprocess.run([HERE / "run_scenarios.py", *sys.argv[1:3], "deliberate_failures",
                           *scenarios], stdout=subprocess.PIPE, text=True, check=False)
    lines = [line.split(None, 2) for line in done.stdout.splitlines()]
    return done.returncode, {words[1]: (words[0] == "ok", words[2]) for words in lines
                             if words and words[0] in ("ok", "FAIL")}


def main():
    status, seen = run()
    expected = {**{name: True for name in RIGHT}, **{name: False for name in REASONS}}
    found = {name: passed for name, (passed, _) in seen.items()}
    assert status == 1, f"exit status {status}"
    assert found == expected, f"{found}, not {expected}"
    for name, reason in REASONS.items():
        assert reason in seen[name][1], f"{name}: {seen[name][1]}, without {reason!r}"
    status, seen = run("right")
    assert status == 0 and list(seen) == ["right"], f"exit status {status}, {seen}"
    status, _ = run("no_such_scenario")
    assert status == 1, f"exit status {status} of a scenario that is not there"


main()
