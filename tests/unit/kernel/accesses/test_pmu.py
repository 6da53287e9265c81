"""What sysfs says of PMUs, made into the words of perf_event_open(2)."""

from pathlib import Path

import pytest

from balancerd.kernel.accesses.pmu import Pmu, parse_cpuinfo, parse_event, parse_format, read_cpu, read_pmu
from balancerd.kernel.errors import ParseError
from tests.unit.kernel.accesses.pmu_trees import ARM, INTEL_GUEST, SKYLAKE, device
from tests.unit.kernel.trees import write_tree


@pytest.mark.parametrize(
    ("text", "config", "bits"),
    [
        (b"config:0-7\n", 0, tuple(range(8))),
        (b"config:19\n", 0, (19,)),
        (b"config1:0-15\n", 1, tuple(range(16))),
        (b"config2:63\n", 2, (63,)),
        (b"config:0-7,32-35\n", 0, (*range(8), 32, 33, 34, 35)),
    ],
)
def test_a_format_names_a_config_and_bits(text: bytes, config: int, bits: tuple[int, ...]) -> None:
    assert parse_format(text, "f") == (config, bits)


@pytest.mark.parametrize("text", [b"", b"config\n", b"config9:0-7\n", b"config:a\n", b"config:60-64\n", b"config:0,\n"])
def test_other_formats_are_errors(text: bytes) -> None:
    with pytest.raises(ParseError):
        parse_format(text, "f")


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        (b"event=0xcd,umask=0x1,ldlat=3\n", {"event": 0xCD, "umask": 1, "ldlat": 3}),
        (b"event=0x3c", {"event": 0x3C}),
        (b"cnt_ctl,rand=10", {"cnt_ctl": 1, "rand": 10}),
    ],
)
def test_an_event_is_made_of_terms(text: bytes, terms: dict[str, int]) -> None:
    assert parse_event(text, "e") == terms


@pytest.mark.parametrize("text", [b"", b"event=", b"event=0x", b"event=zz", b"a b"])
def test_other_events_are_errors(text: bytes) -> None:
    with pytest.raises(ParseError):
        parse_event(text, "e")


def read_only_pmu(root: Path, **formats: str) -> Pmu:
    write_tree(root, device("cpu", 4, {f"format/{name}": text for name, text in formats.items()}))
    pmu = read_pmu(root, "cpu")
    assert pmu is not None
    return pmu


def test_the_bits_of_a_value_go_where_the_format_says(tmp_path: Path) -> None:
    pmu = read_only_pmu(tmp_path, event="config:0-7,32-35", umask="config:8-15", ldlat="config1:4-19")
    assert pmu.configs({"event": 0xA5C, "umask": 0x81, "ldlat": 64}) == (0xA_0000_815C, 64 << 4, 0)
    assert pmu.configs({"config": 0x1000, "event": 1, "config2": 7}) == (0x1001, 0, 7)


def test_a_term_without_a_place_is_an_error(tmp_path: Path) -> None:
    pmu = read_only_pmu(tmp_path, event="config:0-7")
    with pytest.raises(ParseError, match="a term that the PMU does not know"):
        pmu.configs({"umask": 1})
    with pytest.raises(ParseError, match="no room for 0x100"):
        pmu.configs({"event": 0x100})


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    write_tree(tmp_path, SKYLAKE)
    pmu = read_pmu(tmp_path, "cpu")
    assert pmu is not None
    assert (pmu.type, pmu.capability("max_precise"), pmu.capability("other")) == (4, 3, None)
    assert pmu.event("mem-loads-aux") is None
    assert "ldlat" in pmu.formats
    assert read_pmu(tmp_path, "ibs_op") is None


@pytest.mark.parametrize("text", ["", "four\n"])
def test_a_type_that_is_no_number_is_an_error(tmp_path: Path, text: str) -> None:
    write_tree(tmp_path, {**device("cpu", 4, {}), "sys/bus/event_source/devices/cpu/type": text})
    with pytest.raises(ParseError, match="not a number"):
        read_pmu(tmp_path, "cpu")


def test_the_maker_of_the_cpu_is_that_of_the_first_one(tmp_path: Path) -> None:
    write_tree(tmp_path, INTEL_GUEST)
    cpu = read_cpu(tmp_path)
    assert (cpu.vendor, cpu.is_virtual, "other" in cpu.flags) == ("GenuineIntel", True, False)


def test_other_architectures_tell_neither_maker_nor_flags(tmp_path: Path) -> None:
    cpu = parse_cpuinfo(ARM["proc/cpuinfo"].encode())
    assert (cpu.vendor, cpu.flags) == (None, frozenset())
    assert read_cpu(tmp_path) == cpu
