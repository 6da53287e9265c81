"""A /proc or /sys tree from a literal, and the captured machines of tests/machines."""

from collections.abc import Mapping
from pathlib import Path

MACHINES = Path(__file__).parents[2] / "machines"
"""Text captured by tests/machines/capture.py; each directory's README says where."""


def write_tree(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write `files`, path to content, below `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def sys_tree(
    root: Path,
    *,
    nodes: Mapping[int, tuple[str, int]],
    distances: Mapping[int, str],
    online_cpus: str,
    has_memory: str,
) -> Path:
    """Write /sys for `nodes`, number to (cpulist, MiB). Composed, in the format that captures of real machines show."""
    files: dict[str, str] = {
        "devices/system/node/online": ",".join(map(str, sorted(nodes))) + "\n",
        "devices/system/node/has_memory": has_memory + "\n",
        "devices/system/cpu/online": online_cpus + "\n",
    }
    for node, (cpus, mib) in nodes.items():
        base = f"devices/system/node/node{node}"
        files[f"{base}/cpulist"] = cpus + "\n"
        files[f"{base}/distance"] = distances[node] + "\n"
        files[f"{base}/meminfo"] = (
            f"Node {node} MemTotal:       {mib * 1024} kB\n"
            f"Node {node} MemFree:        {mib * 512} kB\n"
            f"Node {node} Inactive(file): {mib * 64} kB\n"
            f"Node {node} HugePages_Total:     0\n"
        )
    return write_tree(root, files)


def stat_line(
    pid: int,
    comm: str,
    *,
    start_ticks: int,
    cpu_ticks: tuple[int, int] = (0, 0),
    rss_pages: int = 100,
    n_threads: int = 1,
    cpu: int = 0,
    flags: int = 0x400000,
) -> str:
    """Compose a line of /proc/PID/stat with the 52 fields of proc_pid_stat(5)."""
    user, system = cpu_ticks
    return (
        f"{pid} ({comm}) S 1 {pid} {pid} 0 -1 {flags} 2009 0 0 0 {user} {system} 0 0 20 0 {n_threads} 0 {start_ticks}"
        f" 1099541041152 {rss_pages} 18446744073709551615 1 1 1 0 0 0 0 16781312 2 1 0 0 17 {cpu}"
        " 0 0 0 0 0 1 1 1 1 1 1 1 0\n"
    )


def proc_tree(root: Path, processes: Mapping[int, Mapping[str, str]]) -> Path:
    """Write /proc: for each pid its files; without task/TID/stat, the process's stat is that of its one thread."""
    for pid, files in processes.items():
        write_tree(root / str(pid), files)
        if not any(name.startswith("task/") for name in files):
            write_tree(root / str(pid), {f"task/{pid}/stat": files["stat"]})
    return root
