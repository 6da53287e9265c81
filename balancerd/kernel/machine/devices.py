"""At which node each network card, NVMe controller and graphics card lies. Knows nothing of who uses it.

A device of the PCI bus has the file numa_node; -1 in it means that the firmware did not say. See the kernel's
Documentation/ABI/testing/sysfs-bus-pci.
"""

import re
from pathlib import Path

from balancerd.kernel.machine.values import read_number
from balancerd.model.ids import NodeId
from balancerd.model.machine import Device

_CLASSES = (("net", "net", r".+"), ("nvme", "nvme", r"nvme\d+"), ("gpu", "drm", r"card\d+"))
"""Kind, class in sysfs, and what a device is called there: a graphics card's connectors stand beside it."""

_PLACES = ("device", "device/..")
"""Where numa_node may be: at the device, or one up, as with virtio, whose device is a child of the PCI slot."""


def read_devices(sysfs: str) -> tuple[Device, ...]:
    """Read every device that lies at a node, by kind and name. Raises ParseError."""
    found: list[Device] = []
    for kind, sysfs_class, name in _CLASSES:
        for path in sorted(Path(f"{sysfs}/class/{sysfs_class}").glob("*")):
            node = _read_node(path) if re.fullmatch(name, path.name) else None
            if node is not None:
                found.append(Device(kind=kind, name=path.name, node=node))
    return tuple(found)


def _read_node(device: Path) -> NodeId | None:
    for place in _PLACES:
        number = read_number(f"{device}/{place}/numa_node")
        if number is not None:
            return None if number < 0 else NodeId(number)
    return None
