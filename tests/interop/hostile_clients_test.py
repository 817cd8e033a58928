#!/usr/bin/python3
"""Clients who come in crowds, ask for much, take nothing or say nothing harm nobody: the server keeps
within its budgets, and serves others meanwhile as before.

usage: hostile_clients_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import resource

import hostile_floods
import rules_in_folders
from hostile_lab import Lab

# For the crowds, and as many in the server, which inherits it.
resource.setrlimit(resource.RLIMIT_NOFILE,
                   (4096, max(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
rules_in_folders.main(Lab, hostile_floods)
