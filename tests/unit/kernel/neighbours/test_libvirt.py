"""Guests that libvirt has pinned: its status files, shortened from those of libvirt 9, and the cgroups of a guest."""

import os
from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.neighbours.libvirt import Guest, GuestFiles, parse_domain_status, read_cgroup_pins
from tests.unit.kernel.trees import write_tree

WARNING = (
    "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE\nOVERWRITTEN AND LOST.\n-->\n\n"
)


def status(domain: str = "", *, private: str = "", pid: str = "17150", name: str = "web") -> bytes:
    """What /run/libvirt/qemu/NAME.xml holds of a running guest."""
    return (
        f"{WARNING}<domstatus state='running' reason='booted' pid='{pid}'>\n"
        f"  <monitor path='/var/lib/libvirt/qemu/domain-3-{name}/monitor.sock' type='unix'/>\n"
        f"  <vcpus>\n    <vcpu id='0' pid='17156'/>\n  </vcpus>\n  {private}\n"
        f"  <domain type='kvm' id='3'>\n    <name>{name}</name>\n"
        f"    <metadata><cputune xmlns='urn:x'><vcpupin cpuset='9'/></cputune></metadata>\n    {domain}\n"
        "    <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>\n  </domain>\n</domstatus>\n"
    ).encode()


@pytest.mark.parametrize(
    ("domain", "private", "pins"),
    [
        ("<vcpu placement='static'>4</vcpu>", "", ""),
        ("<cputune><shares>2048</shares><emulatorpin cpuset='1'/></cputune>", "", ""),
        (
            "<cputune><vcpupin vcpu='0' cpuset='2'/><vcpupin vcpu='1' cpuset='3'/></cputune>",
            "",
            "libvirt pins its virtual CPUs: <vcpupin> 2, 3",
        ),
        ("<vcpu placement='static' cpuset='0-3'>4</vcpu>", "", "libvirt pins its virtual CPUs: <vcpu cpuset='0-3'>"),
        (
            "<numatune><memory mode='strict' nodeset='0'/><memnode mode='preferred' nodeset='1'/></numatune>",
            "",
            "libvirt binds its memory: <numatune> memnode preferred 1, memory strict 0",
        ),
        (
            "<cputune><vcpupin vcpu='0' cpuset='2'/></cputune><numatune><memory nodeset='0'/></numatune>",
            "",
            "libvirt pins its virtual CPUs: <vcpupin> 2; libvirt binds its memory: <numatune> memory strict 0",
        ),
        (
            "<numatune><memory mode='strict' placement='auto'/></numatune>",
            "<numad nodeset='0-2'/>",
            "libvirt placed it as numad advised: node 0-2",
        ),
    ],
)
def test_each_way_to_pin_a_guest_is_named_and_what_stands_in_metadata_is_not(
    domain: str, private: str, pins: str
) -> None:
    text = status(domain, private=private)
    assert parse_domain_status(text, "x.xml") == Guest(name="web", pid=17150, pins=pins)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "x.xml:1: no element found"),
        (b"<domstatus pid='1'><domain>", "x.xml:1: no element found"),
        (b"<domain type='kvm'><name>web</name></domain>", "x.xml:0: no pid or no name"),
        (b"<?xml version='1.0' encoding='x-y'?><domstatus/>", "x.xml:1: unknown encoding"),
        (status(pid="0x1"), "x.xml:0: no pid or no name"),
    ],
)
def test_what_is_no_status_file_is_an_error_with_its_place(text: bytes, message: str) -> None:
    with pytest.raises(ParseError, match=f"^{message}"):
        parse_domain_status(text, "x.xml")


PINNED = "<vcpu cpuset='1'>1</vcpu>"


def test_guests_are_read_again_when_they_change_and_forgotten_when_they_go(tmp_path: Path) -> None:
    guests = GuestFiles(str(tmp_path))
    write_tree(tmp_path, {"web.xml": status(PINNED), "db.xml": status(pid="20", name="db"), "autostart/x.xml": "?"})
    assert {pid: bool(guest.pins) for pid, guest in guests.look().by_pid.items()} == {17150: True, 20: False}
    write_tree(tmp_path, {"db.xml": status(PINNED, pid="21", name="db")})
    os.utime(tmp_path / "db.xml", ns=(1, 1))
    (tmp_path / "web.xml").unlink()
    found = guests.look()
    assert {pid: bool(guest.pins) for pid, guest in found.by_pid.items()} == {21: True}
    assert found.unreadable is None


def test_one_file_that_cannot_be_understood_does_not_hide_the_others(tmp_path: Path) -> None:
    write_tree(tmp_path, {"bad.xml": "<", "web.xml": status(PINNED)})
    found = GuestFiles(str(tmp_path)).look()
    assert list(found.by_pid) == [17150]
    assert (found.unreadable or "").startswith(f"{tmp_path}/bad.xml: ")


def test_without_libvirt_there_are_no_guests(tmp_path: Path) -> None:
    found = GuestFiles(str(tmp_path / "none")).look()
    assert (found.by_pid, found.unreadable) == ({}, None)


@pytest.mark.parametrize(
    ("files", "pins"),
    [
        ({}, ""),
        ({"libvirt/vcpu0/cpuset.cpus": "\n", "libvirt/vcpu0/cpuset.mems": "\n"}, ""),
        (
            {
                "libvirt/vcpu0/cpuset.cpus": "2\n",
                "libvirt/vcpu1/cpuset.cpus": "3\n",
                "libvirt/emulator/cpuset.cpus": "0\n",
            },
            "libvirt pins its virtual CPUs: cpuset.cpus 2, 3",
        ),
        ({"libvirt/vcpu0/cpuset.mems": "0\n"}, "libvirt binds its memory: cpuset.mems 0"),
    ],
)
def test_the_cgroups_of_a_guest_tell_of_its_pins(tmp_path: Path, files: dict[str, str], pins: str) -> None:
    assert read_cgroup_pins(str(write_tree(tmp_path, files))) == pins
