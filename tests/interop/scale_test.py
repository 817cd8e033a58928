#!/usr/bin/python3
"""What huge images, many clients and several threads cost.

usage: scale_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import resource

import rules_in_folders
import scale_connections
import scale_images
from program_rules import Lab

# For a thousand clients, and as many in the server, which inherits it.
resource.setrlimit(resource.RLIMIT_NOFILE,
                   (4096, max(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
rules_in_folders.main(Lab, scale_images, scale_connections)
