"""A virtual machine's life: boot it (again, if its kernel dies on the way), run commands in it, shut it down.

Knows the host's processes and files.  Must not know tests, nor who asks.
"""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import initrd, kernel, oracle, qemu
from tests.lab.link import Completed, Link, MachineLostError, OnOutput
from tests.lab.oracle import OracleOptions
from tests.lab.packages import ensure_installed, ensure_tools
from tests.lab.state import LabDirectory, LabError, acquire_lock, lab_directory
from tests.lab.terminal import Terminal
from tests.lab.topology import Topology

BOOT_ATTEMPTS = 3
EXIT_SECONDS = 3.0  # what a QEMU that ends is given to be gone
BOOT_SECONDS = 120.0
PREFERRED_NICE = -15  # against 0 that is 28 times as much of a CPU for which both wait: sched(7)
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEMD = Path("/lib/systemd/systemd")
HOST_FILES = Path("/run/lab/host")
"""Where this machine's files are inside one that boots from an image."""


class BootError(LabError):
    """The machine did not come up; the message ends with what its console and QEMU said last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to boot.

    `kernel` is a series, one of kernel.SERIES; `systemd_unit` makes systemd PID 1 with that unit; `root` is an image to
    boot from in place of this machine's own files, which are below HOST_FILES then; `life_seconds` lets the machine
    outlive this process.  With `oracle` all accesses to memory are counted, into Machine.counters.  Machine.address
    leads to TCP port `open_port` of the guest; the guest itself reaches nobody.
    """

    kernel: str = kernel.DEFAULT
    threads: qemu.Threads = "single"
    systemd_unit: str = ""
    root: Path | None = None
    kernel_arguments: str = ""
    life_seconds: float | None = None
    oracle: OracleOptions | None = None
    open_port: int | None = None


class Machine:
    """One machine of a topology.  As a context manager it boots on entry and is gone on exit."""

    def __init__(self, topology: Topology, *, options: Options | None = None, lab: LabDirectory | None = None) -> None:
        self.topology = topology
        self.options = options or Options()
        self.lab = lab or lab_directory()
        self.name = machine_name(topology.name, self.options.kernel)
        self.folder = self.lab.machine(self.name)
        self.out = self.folder / "out"
        self.boot_seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None

    def __enter__(self) -> Self:
        self.boot()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    @property
    def pid(self) -> int | None:
        """The process that is the machine on the host; None while it is down."""
        return self._process.pid if self._process else None

    def is_running(self) -> bool:
        """Whether QEMU is there; the guest may still be dead inside."""
        return self._process is not None and self._process.poll() is None

    @property
    def link(self) -> Link:
        """The way in, for `run` and for other processes; raises MachineLostError while the machine is down."""
        if self._sockets is None:
            raise MachineLostError(f"{self.name} is not up")
        return Link(path=self._sockets / "agent")

    @property
    def address(self) -> tuple[str, int]:
        """Where this machine reaches Options.open_port of the guest; raises MachineLostError while there is no way."""
        import psutil  # here, since the guest imports this module too, and takes long over it

        for connection in [] if self.pid is None else psutil.Process(self.pid).net_connections("tcp4"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr:
                return connection.laddr.ip, connection.laddr.port
        raise MachineLostError(f"no port leads to {self.name}")

    @property
    def console(self) -> Path:
        """What the guest's kernel printed."""
        return self.folder / "console.log"

    @property
    def counters(self) -> Path:
        """What the oracle wrote, whole once the machine is down; absent without Options.oracle."""
        return self.folder / "counters"

    def boot(self) -> None:
        """Fetch what is missing, take the checkout's lock and start; raises BootError or LabError.

        A kernel that dies at boot, or falls silent, is booted again; what cannot get better by itself is not.
        """
        ensure_installed()
        chosen = kernel.ensure_kernel(self.lab.packages, self.options.kernel)
        settings = self._settings(chosen.modules)
        plugin = self._plugin()
        lock = acquire_lock(self.lab)
        try:
            (self.folder / "initrd").write_bytes(initrd.build(chosen, settings))
            shutil.rmtree(self.out)
            self.out.mkdir()
            for attempt in range(1, BOOT_ATTEMPTS + 1):
                started = time.monotonic()
                try:
                    self._start(chosen.image, plugin, lock)
                except MachineLostError as error:
                    hopeless = self._is_hopeless()
                    self.shutdown()
                    if hopeless or attempt == BOOT_ATTEMPTS:
                        raise BootError(f"{self.name}: {error}\n{self._last_words()}") from error
                    print(f"lab: {self.name}: {error} at boot; once more", file=sys.stderr)
                else:
                    self.boot_seconds = time.monotonic() - started
                    return
        except BaseException:
            self.shutdown()  # also when the user interrupts the boot
            raise
        finally:
            os.close(lock)  # QEMU holds it too, and so keeps the lock for its own life

    def prefer_cpu(self, cpu: int) -> bool:
        """Have the host run this virtual CPU before the others; False where this process may not (nice(2)).

        With fewer CPUs than virtual ones, each slows the others down; the one that must not wait for them can go first.
        Raises LabError when that CPU has no thread of its own: Options.threads must be "multi".
        """
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            if _text(task / "comm").strip() == qemu.thread_name(cpu):
                try:
                    os.setpriority(os.PRIO_PROCESS, int(task.name), PREFERRED_NICE)
                except PermissionError:
                    return False
                return True
        raise LabError(f"{self.name}: CPU {cpu} has no thread of its own")

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
        on_output: OnOutput | None = None,
        terminal: Terminal | None = None,
    ) -> Completed:
        """Run a command inside, by default in this process's working directory; see Link.run."""
        try:
            return self.link.run(
                argv,
                cwd=cwd or Path.cwd(),
                env={**environment(self.topology.name, self.options.kernel), **(env or {})},
                timeout_seconds=timeout_seconds,
                on_output=on_output,
                terminal=terminal,
            )
        except MachineLostError as error:
            raise MachineLostError(f"{self.name}: {error}\n{self._last_words()}") from error

    def shutdown(self) -> None:
        """End the machine at once: all it wrote outside `out` is thrown away anyhow."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets)
            self._sockets = None

    def _plugin(self) -> str:
        if self.options.oracle is None:
            return ""
        program = oracle.build(self.lab.root / "bin")
        return oracle.arguments(self.topology, program, self.counters, self.options.oracle)

    def _start(self, image: Path, plugin: str, lock: int) -> None:
        self.console.unlink(missing_ok=True)
        self.counters.unlink(missing_ok=True)
        # a folder of its own under /tmp, since the path of a socket holds at most 107 bytes (unix(7))
        self._sockets = Path(tempfile.mkdtemp(prefix="lab-"))
        with socket.socket(socket.AF_UNIX) as listener, (self.folder / "qemu.log").open("wb") as log:
            listener.bind(str(self.link.path))
            listener.listen()
            self._process = subprocess.Popen(
                self._command(image, plugin, listener.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock, listener.fileno()),
                start_new_session=True,
            )
        self.link.run(["true"], cwd=Path("/"), env={}, answer_seconds=BOOT_SECONDS)

    def _command(self, image: Path, plugin: str, agent: int) -> list[str]:
        paths = qemu.Paths(
            image=image,
            initrd=self.folder / "initrd",
            console=self.console,
            agent=agent,
            out=self.out,
            root=self.options.root,
        )
        arguments = qemu.command(
            self.topology,
            paths,
            threads=self.options.threads,
            kernel_arguments=self.options.kernel_arguments,
            plugin=plugin,
            open_port=self.options.open_port,
        )
        (self.folder / "command").write_text(shlex.join(arguments) + "\n", encoding="utf-8")
        if self.options.life_seconds is None:
            return ["setpriv", "--pdeathsig", "TERM", *arguments]  # a killed test run leaves no machine behind
        return ["timeout", str(self.options.life_seconds), *arguments]

    def _is_hopeless(self) -> bool:
        if "lab-init:" in _text(self.console):
            return True
        if self._process is None:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_SECONDS)  # its socket closes a moment before it is gone
        return bool(self._process.returncode)

    def _last_words(self) -> str:
        logs = (self.console, self.folder / "qemu.log")
        return "\n".join(f"--- {log}\n{_text(log)[-3000:]}" for log in logs)

    def _settings(self, modules: Path) -> dict[str, str]:
        is_own_root = self.options.root is None
        if self.options.systemd_unit and is_own_root and not SYSTEMD.exists():
            raise LabError(f"{SYSTEMD} is missing: a machine with systemd needs the package systemd here")
        tools = ensure_tools(self.lab.packages)
        python = os.path.realpath(sys.executable) if is_own_root else "/usr/bin/python3"
        agent = shlex.join([python, "-S", "-E", inside(initrd.GUEST / "agent.py", self.options)])
        return {
            "HOST_NAME": qemu.host_name(self.topology),
            "MODULES_FOLDER": inside(modules, self.options),
            "GUEST_PATH": ":".join([SYSTEM_PATH, *(inside(tool, self.options) for tool in tools)]),
            "ROOT_DISK": "" if is_own_root else "/dev/vda",
            "HOST_FILES": str(HOST_FILES),
            "AGENT": agent,
            "SYSTEMD_UNIT": self.options.systemd_unit,
            "ADDRESS": "" if self.options.open_port is None else qemu.GUEST_ADDRESS,
            "INIT": f"{SYSTEMD} --unit=lab.target --show-status=no" if self.options.systemd_unit else agent,
        }


def inside(path: Path, options: Options) -> str:
    """Return where a file of this machine is inside."""
    return str(path if options.root is None else HOST_FILES / path.relative_to("/"))


def machine_name(topology: str, series: str) -> str:
    """What messages and folders call a machine: its topology, with the kernel's series when that is not the default."""
    return topology if series == kernel.DEFAULT else f"{topology}-{series}"


def environment(topology: str, series: str) -> dict[str, str]:
    """What every command inside finds in its environment: the names of the topology and of the kernel it runs on."""
    return {"BALANCERD_LAB_TOPOLOGY": topology, "BALANCERD_LAB_KERNEL": series}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
