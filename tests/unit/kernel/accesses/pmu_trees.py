"""What /sys and /proc say of the PMUs of some machines, as the kernel's tables have it.

Composed, as no PMU is at hand to capture them from. Intel: arch/x86/events/intel/core.c (mem_ld_hsw, mem_st_hsw,
mem_st_spr, mem_ld_aux, mem_ld_adl, mem_st_adl, intel_arch3_formats_attr). AMD: arch/x86/events/amd/ibs.c and core.c.
"""

from collections.abc import Mapping

_DEVICES = "sys/bus/event_source/devices"
_PEBS = {
    "format/event": "config:0-7\n",
    "format/umask": "config:8-15\n",
    "format/cmask": "config:24-31\n",
    "format/ldlat": "config1:0-15\n",
    "format/offcore_rsp": "config1:0-63\n",
    "events/mem-loads": "event=0xcd,umask=0x1,ldlat=3\n",
    "caps/max_precise": "3\n",
}
_STORES = {"events/mem-stores": "event=0xcd,umask=0x2\n"}
_AUXILIARY = {"events/mem-loads-aux": "event=0x03,umask=0x82\n"}


def cpuinfo(vendor: str, flags: str) -> dict[str, str]:
    """Two CPUs, of which only the first counts."""
    of_each = "processor\t: {}\nvendor_id\t: " + vendor + "\nflags\t\t: fpu vme {}\nbugs\t\t:\n"
    return {"proc/cpuinfo": of_each.format(0, flags) + "\n" + of_each.format(1, "other")}


def device(name: str, pmu_type: int, files: Mapping[str, str]) -> dict[str, str]:
    """The files of a PMU."""
    return {f"{_DEVICES}/{name}/{file}": text for file, text in {"type": f"{pmu_type}\n", **files}.items()}


INTEL = cpuinfo("GenuineIntel", "dts arch_perfmon pebs")
INTEL_GUEST = cpuinfo("GenuineIntel", "arch_perfmon hypervisor")
AMD = cpuinfo("AuthenticAMD", "ibs perfctr_core")
AMD_GUEST = cpuinfo("AuthenticAMD", "hypervisor")
ARM = {"proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n"}

SKYLAKE = {**INTEL, **device("cpu", 4, {**_PEBS, "events/mem-stores": "event=0xd0,umask=0x82\n"})}
SAPPHIRE_RAPIDS = {**INTEL, **device("cpu", 4, {**_PEBS, **_STORES, **_AUXILIARY})}
ALDER_LAKE = {
    **INTEL,
    **device("cpu_core", 4, {**_PEBS, **_STORES, **_AUXILIARY}),
    **device(
        "cpu_atom",
        10,
        {
            **_PEBS,
            "events/mem-loads": "event=0xd0,umask=0x5,ldlat=3\n",
            "events/mem-stores": "event=0xd0,umask=0x6\n",
        },
    ),
}
WITHOUT_PEBS = {
    **INTEL_GUEST,
    **device("cpu", 4, {"format/event": "config:0-7\n", "events/cycles": "event=0x3c\n", "caps/max_precise": "0\n"}),
}

_AMD_CPU = device("cpu", 4, {"format/event": "config:0-7,32-35\n", "format/umask": "config:8-15\n"})
ZEN_1 = {**AMD, **_AMD_CPU, **device("ibs_op", 9, {})}
ZEN_3 = {**AMD, **_AMD_CPU, **device("ibs_op", 9, {"format/cnt_ctl": "config:19\n"})}
ZEN_4 = {
    **AMD,
    **_AMD_CPU,
    **device(
        "ibs_op",
        11,
        {
            "format/cnt_ctl": "config:19\n",
            "format/l3missonly": "config:16\n",
            "format/swfilt": "config2:0\n",
            "caps/zen4_ibs_extensions": "1\n",
        },
    ),
}
