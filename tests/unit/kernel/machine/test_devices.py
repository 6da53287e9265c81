from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.machine.devices import read_devices
from balancerd.model.ids import NodeId
from balancerd.model.machine import Device
from tests.unit.kernel.trees import write_tree


def plug(sysfs: Path, sysfs_class: str, name: str, slot: str, numa_node: str | None, below: str = "") -> None:
    """Add a device in a PCI slot, or of a device `below` that slot, as sysfs links it."""
    holder = sysfs / "devices/pci0000:00" / slot / below
    holder.mkdir(parents=True, exist_ok=True)
    if numa_node is not None:
        write_tree(sysfs / "devices/pci0000:00" / slot, {"numa_node": numa_node})
    entry = sysfs / "class" / sysfs_class / name
    entry.mkdir(parents=True)
    (entry / "device").symlink_to(holder)


def test_devices_lie_at_the_node_of_their_slot_or_of_the_slot_above(tmp_path: Path) -> None:
    plug(tmp_path, "nvme", "nvme0", "0000:81:00.0", "3\n")
    plug(tmp_path, "net", "eth1", "0000:02:00.1", "1\n")
    plug(tmp_path, "net", "eth0", "0000:02:00.0", "0\n", below="virtio2")
    plug(tmp_path, "drm", "card0", "0000:c1:00.0", "7\n")
    plug(tmp_path, "drm", "card0-DP-1", "0000:c1:00.0", None)
    plug(tmp_path, "drm", "renderD128", "0000:c1:00.0", None)
    assert read_devices(str(tmp_path)) == (
        Device(kind="net", name="eth0", node=NodeId(0)),
        Device(kind="net", name="eth1", node=NodeId(1)),
        Device(kind="nvme", name="nvme0", node=NodeId(3)),
        Device(kind="gpu", name="card0", node=NodeId(7)),
    )


def test_a_device_at_no_node_is_left_out_and_so_is_one_that_is_no_hardware(tmp_path: Path) -> None:
    plug(tmp_path, "net", "eth0", "0000:02:00.0", "-1\n")
    plug(tmp_path, "net", "usb0", "0000:03:00.0", None, below="usb1/1-1")
    (tmp_path / "class/net/lo").mkdir()
    assert read_devices(str(tmp_path)) == ()


def test_a_machine_without_such_devices_has_none(tmp_path: Path) -> None:
    assert read_devices(str(tmp_path)) == ()


def test_a_node_that_is_no_number_is_an_error_with_its_file(tmp_path: Path) -> None:
    plug(tmp_path, "net", "eth0", "0000:02:00.0", "near\n")
    with pytest.raises(ParseError, match="class/net/eth0/device/numa_node:1: not a number"):
        read_devices(str(tmp_path))
