#!/usr/bin/python3
"""A new volume is there in less than a tenth of a second."""
import time

import guest
from guest import THIN, check, create, equal, pool, run, scenario, template

LIMIT = 0.1  # seconds from the command to the first byte read
RUNS, MOST_RUNS = 5, 20  # more than RUNS only while none was fast enough: the machine is shared


@scenario
def create_takes_less_than_a_tenth_of_a_second():
    for name in ("compressed.qcow2", "plain.qcow2"):
        one = template(name)
        with pool():
            create("first", one)  # its server runs from here on
            times = []
            for number in range(MOST_RUNS):
                if number >= RUNS and min(times) < LIMIT:
                    break
                started = time.monotonic()
                status, _, steps = run(THIN, "--verbose", "create", f"volume{number}", *one.image,
                                       "--pool", "pool")
                equal(status, 0, f"the exit status of create ({steps!r})")
                guest.read_at(f"/dev/mapper/volume{number}", 0, 4096)
                times.append(time.monotonic() - started)
            print(f"    {name}: " + " ".join(f"{took * 1000:.0f}" for took in times) + " ms")
            print("      " + steps.strip().replace("\n", "\n      "), flush=True)
            check(min(times) < LIMIT, f"{name}: {min(times) * 1000:.0f} ms at best")


guest.main()
