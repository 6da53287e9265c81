"""What is in the way of DAMON here, and the exact remedy. Opens the files that would be written, and writes nothing."""

import errno
import os
from pathlib import Path
from typing import Final

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_if_there
from balancerd.kernel.heat.kdamonds import TREE, Kdamonds, Owner
from balancerd.model.access import Obstacle
from balancerd.model.ids import ProcessId

ALONE: Final = ("damon_reclaim", "damon_lru_sort", "damon_stat")
"""Modules whose thread suffers no other one (damon_start() in mm/damon/core.c); damon_stat since 6.17."""

NO_VADDR: Final = Obstacle(
    seen="DAMON of this kernel cannot watch processes: avail_operations does not name vaddr",
    fix="boot a kernel with CONFIG_DAMON_VADDR=y",
)

TAKEN_FIX: Final = (
    "end what uses it (damo stop), or as root: cd /sys/kernel/mm/damon/admin/kdamonds; "
    "for s in */state; do echo off > $s; done; echo 0 > nr_kdamonds"
)

RIGHTS_FIX: Final = (
    "run as root, or in the unit AmbientCapabilities=CAP_DAC_OVERRIDE and CapabilityBoundingSet=CAP_DAC_OVERRIDE, "
    "as good as root, and in both cases ProtectKernelTunables=no (systemctl edit balancerd.service)"
)


def find_obstacle(root: Path = Path("/")) -> Obstacle | None:
    """Look whether DAMON can be used: its files can be written, and are nobody else's. None when so.

    Whether the kernel can watch processes shows only once a thread is set up: then it is looked at.
    """
    sysfs, procfs = str(root / "sys"), str(root / "proc")
    return find_tree_obstacle(Kdamonds(ProcessId(0, 0), sysfs=sysfs, procfs=procfs), sysfs, may_be_peers=True)


def find_tree_obstacle(kdamonds: Kdamonds, sysfs: str, *, may_be_peers: bool) -> Obstacle | None:
    """The same for a tree; another running balancerd that has it is no obstacle when `may_be_peers`."""
    top = f"{sysfs}/{TREE}"
    try:
        os.close(os.open(f"{top}/nr_kdamonds", os.O_RDWR | os.O_CLOEXEC))
        owner = kdamonds.owner()
        if owner not in {Owner.NOBODY, Owner.OTHER} and not kdamonds.offers_vaddr():
            return NO_VADDR
    except FileNotFoundError:
        fix = "boot a kernel with CONFIG_DAMON_SYSFS=y and CONFIG_DAMON_VADDR=y, such as 6.12 of Debian 13"
        return Obstacle(seen=f"the kernel has no {top}", fix=fix)
    except OSError as error:
        word = errno.errorcode.get(error.errno or 0, str(error.errno))
        return Obstacle(seen=f"{top} cannot be written: {word} ({error.strerror})", fix=RIGHTS_FIX)
    except ParseError as error:
        return Obstacle(seen=str(error), fix="none: set accesses.heat to null")
    for module in ALONE:
        path = f"{sysfs}/module/{module}/parameters/enabled"
        if (read_if_there(path) or b"").strip() == b"Y":
            return Obstacle(seen=f"{module} is at work, and suffers no other use of DAMON", fix=f"echo N > {path}")
    if owner is Owner.OTHER:
        return Obstacle(seen="somebody else has set up threads of DAMON, which has room for one user", fix=TAKEN_FIX)
    if owner is Owner.PEER and not may_be_peers:
        fix = "set accesses.heat to null in one of them"
        return Obstacle(seen="another balancerd that runs uses DAMON, which has room for one user", fix=fix)
    return None
