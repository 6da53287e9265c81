"""The real machine: everything that reads procfs, sysfs or cgroupfs, or calls move_pages(2), is in this room.

`live.py` is the Kernel that the engine sees. Behind it: `machine` (nodes and how they do), `processes` (the survey of
all, who opts out), `workloads` (what they belong to), `neighbours` (who else manages memory), `placement` (where the
pages of a few lie), `moving` (moving and evicting them); and `doctor` beside it.
"""
