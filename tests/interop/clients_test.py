#!/usr/bin/python3
"""The program as its users run it: real clients over TCP and Unix sockets, several exports, folders,
allowed paths, and the budgets that hold for all clients together.

usage: clients_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import clients_budgets
import clients_exports
import clients_network
import rules_in_folders
from clients_lab import Lab

rules_in_folders.main(Lab, clients_network, clients_exports, clients_budgets)
