"""The fault suite: what is done to the daemon, to those whose memory it moves, and to the machine below both.

Inside the guest. Each fault is tried so many times, at moments and places that a seed chooses, and each leaves its
figures (`tally`) in a file: how often it was tried, how often all came through, pages lost, workload errors, and pages
that moved and should not have. `python -m tests.lab test` makes few tries of some; `python -m tests.bench faults` makes
all of them, and a page of the figures.
"""
