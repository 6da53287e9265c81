"""The QEMU command line of a machine: pure functions from a Topology and paths to arguments.

Must not start anything.  See qemu-system-x86_64(1); -numa in its section "Standard options".
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.lab.topology import Topology

# single: all virtual CPUs take turns on one host thread.  multi: a thread each, for benchmarks; on a busy host the
# guest's kernel now and then dies while it patches its own code.  counted: one host thread, and the clock counts
# instructions (2 ns each), so that what else the host does is not in any figure; for latencies.
Threads = Literal["single", "multi", "counted"]
ACCELERATORS = {
    "single": ("-accel", "tcg,thread=single"),
    "multi": ("-accel", "tcg,thread=multi"),
    "counted": ("-accel", "tcg,thread=single", "-icount", "shift=1"),
}

CPU = "max"
# The plugin is called for each byte of rep movsb and rep stosb, with which the kernel and the C library copy and zero:
# some 14,000 calls for a page that moves.  Without these two features they do it by the word.
CPU_UNDER_PLUGIN = "max,-erms,-fsrm"

AGENT_PORT = "lab.agent"
GUEST_ADDRESS = "10.0.2.15"  # where QEMU's own network looks for the guest: qemu-system-x86_64(1), -netdev user
UNSEEN_DISTANCE = 20  # to nodes that never come online; QEMU wants all of them

# lpj and no_timer_check: no calibration loop per CPU.  oops=panic, panic=-1: a broken kernel ends QEMU at once.
# numa_balancing: Debian turns it on, and it would move pages under a test; sysctl kernel.numa_balancing brings it back.
# memhp_default_state: DIMMs come online by themselves, with nothing on them that could not be moved away.
KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet oops=panic panic=-1 lpj=10000000 no_timer_check tsc=reliable mitigations=off nowatchdog "
    "rcupdate.rcu_expedited=1 numa_balancing=disable memhp_default_state=online_movable"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """The files a machine is made of; `agent` is the descriptor of a listening socket that QEMU inherits.

    `root` is the image of another root file system than this machine's own; it is only read.
    """

    image: Path
    initrd: Path
    console: Path
    agent: int
    out: Path
    root: Path | None = None


def command(
    topology: Topology,
    paths: Paths,
    *,
    threads: Threads,
    kernel_arguments: str = "",
    plugin: str = "",
    open_port: int | None = None,
) -> list[str]:
    """The whole command line; `plugin` is what follows -plugin, if anything, and `open_port` as network() has it."""
    return [
        "qemu-system-x86_64",
        *(*ACCELERATORS[threads], "-cpu", CPU_UNDER_PLUGIN if plugin else CPU),
        *("-machine", "q35,hmat=on" if topology.localities else "q35"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-name", f"{host_name(topology)},debug-threads=on"),
        *("-kernel", str(paths.image), "-initrd", str(paths.initrd)),
        *("-append", f"{KERNEL_COMMAND_LINE} systemd.hostname={host_name(topology)} {kernel_arguments}".rstrip()),
        *("-serial", f"file:{paths.console}"),
        *_shared("root", Path("/"), "readonly=on,multidevs=remap"),
        *_shared("out", paths.out, "multidevs=remap"),
        *(() if paths.root is None else _disk("root", paths.root)),
        *("-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={paths.agent},server=on,wait=off"),
        *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"),
        *("-device", "virtio-rng-pci"),
        *network(open_port),
        *memory(topology),
        *processors(topology),
        *distances(topology),
        *heterogeneity(topology),
        *(("-plugin", plugin) if plugin else ()),
    ]


def thread_name(cpu: int) -> str:
    """What the host thread of a virtual CPU is called, where each has one (threads "multi")."""
    return f"CPU {cpu}/TCG"


def host_name(topology: Topology) -> str:
    """What the guest calls itself."""
    return f"lab-{topology.name}"


def network(open_port: int | None) -> list[str]:
    """A network on which the guest reaches nobody, and a port of this machine's loopback leads to its `open_port`.

    Which port that is, the host chooses.  None: no network at all.
    """
    if open_port is None:
        return []
    forward = f"hostfwd=tcp:127.0.0.1:0-{GUEST_ADDRESS}:{open_port}"
    return [
        *("-netdev", f"user,id=network,restrict=on,ipv6=off,{forward}"),
        *("-device", "virtio-net-pci,netdev=network,romfile="),  # no ROM: it would boot from the network
    ]


def processors(topology: Topology) -> list[str]:
    """Each CPU is a socket of its own, so that nodes may have any number.

    A missing node id is made by a CPU that is never plugged in: ACPI's SRAT names its node, and so the kernel counts
    it as possible.  QEMU starts the CPUs before the first such gap by itself; those behind it are plugged in here.
    """
    cpus_of = {node.id: node.cpus for node in topology.nodes}
    sockets = [node for node in range(topology.node_ids[-1] + 1) for _ in range(cpus_of.get(node, 1))]
    gaps = [socket for socket, node in enumerate(sockets) if node not in cpus_of]
    first = min(gaps, default=len(sockets))
    arguments = ["-smp", f"{first},maxcpus={len(sockets)},sockets={len(sockets)},cores=1,threads=1"]
    for socket, node in enumerate(sockets):
        arguments += ["-numa", f"cpu,node-id={node},socket-id={socket}"]
        if socket > first and socket not in gaps:
            arguments += ["-device", f"max-x86_64-cpu,socket-id={socket},core-id=0,thread-id=0"]
    return arguments


def memory(topology: Topology) -> list[str]:
    """The nodes and their memory; an id that is missing becomes a node with nothing, and so does one with a DIMM."""
    dimms = [node for node in topology.nodes if node.dimm]
    total_mib = sum(node.memory_mib for node in topology.nodes)
    boot_mib = total_mib - sum(node.memory_mib for node in dimms)
    arguments = ["-m", f"{boot_mib}M,slots={len(dimms)},maxmem={total_mib}M" if dimms else f"{total_mib}M"]
    nodes = {node.id: node for node in topology.nodes}
    for number in range(topology.node_ids[-1] + 1):
        node = nodes.get(number)
        if node is None:
            arguments += ["-numa", f"node,nodeid={number}"]
            continue
        initiator = "" if node.initiator is None else f",initiator={node.initiator}"
        backend = "" if node.dimm else f",memdev=memory{number}"
        arguments += ["-object", f"memory-backend-ram,id=memory{number},size={node.memory_mib}M"]
        arguments += ["-numa", f"node,nodeid={number}{backend}{initiator}"]
    for dimm in dimms:
        arguments += ["-device", f"pc-dimm,id=dimm{dimm.id},memdev=memory{dimm.id},node={dimm.id}"]
    return arguments


def heterogeneity(topology: Topology) -> list[str]:
    """The HMAT: latency, bandwidth and memory-side caches; QEMU wants it after the CPUs."""
    options = []
    for hop in topology.localities:
        between = f"hmat-lb,initiator={hop.initiator},target={hop.target},hierarchy=memory"
        options.append(f"{between},data-type=access-latency,latency={hop.latency_ns}")
        options.append(f"{between},data-type=access-bandwidth,bandwidth={hop.bandwidth_mib_per_second}M")
    for cache in topology.memory_side_caches:
        shape = f"size={cache.cache_mib}M,line={cache.line_bytes}"
        options.append(f"hmat-cache,node-id={cache.node},level=1,associativity=direct,policy=write-back,{shape}")
    return _numa(options)


def distances(topology: Topology) -> list[str]:
    """The SLIT, with a row and a column for every id up to the last."""
    index = {node: i for i, node in enumerate(topology.node_ids)}
    everyone = range(topology.node_ids[-1] + 1)
    options = []
    for source in everyone:
        for target in everyone:
            if source == target:
                continue
            seen = source in index and target in index
            value = topology.distances[index[source]][index[target]] if seen else UNSEEN_DISTANCE
            options.append(f"dist,src={source},dst={target},val={value}")
    return _numa(options)


def _numa(options: list[str]) -> list[str]:
    return [argument for option in options for argument in ("-numa", option)]


def _disk(name: str, image: Path) -> list[str]:
    drive = f"file={image},format=raw,if=none,id={name},readonly=on"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name}"]


def _shared(tag: str, folder: Path, options: str) -> list[str]:
    return [
        *("-fsdev", f"local,id={tag},path={folder},security_model=none,{options}"),
        *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    ]
