"""What is wrong with a request for a job, found before it is queued: no such process, node or move, nothing to do."""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from balancerd.engine.moves import Move
from balancerd.jobs.means import Machine
from balancerd.jobs.nodes import target_of
from balancerd.jobs.record import JobRequest, MoveRequest, UndoRequest
from balancerd.model.decision import REASON_TEXT, Reason
from balancerd.model.ids import NodeId, ProcessId, format_id_list
from balancerd.model.sample import ProcessSample


class Refusal(enum.Enum):
    """Why a request is not taken up."""

    INVALID = enum.auto()
    NOT_FOUND = enum.auto()
    CONFLICT = enum.auto()


class Refused(Exception):  # noqa: N818 -- a refusal is an answer, no error of anyone
    """A request cannot be taken up; the message is a sentence for whoever asked."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Whom a request is about, and which node goes to which."""

    process: ProcessId
    comm: str
    target_of: Mapping[NodeId, NodeId] = field(default_factory=dict)


def check(request: JobRequest, machine: Machine, moves: Iterable[Move], own_pid: int) -> Checked:
    """Return what a request means on this machine now. Raises Refused."""
    if isinstance(request, UndoRequest):
        return _check_undo(request, machine, moves)
    pairs = _pairs(request, machine) if isinstance(request, MoveRequest) else {}
    process = _look(machine, request.pid)
    if process.kernel_thread or process.id.pid == own_pid:
        reason = Reason.KERNEL_THREAD if process.kernel_thread else Reason.SELF
        raise Refused(Refusal.INVALID, f"process {process.id.pid}: {REASON_TEXT[reason]}")
    return Checked(process=process.id, comm=process.comm, target_of=pairs)


def _check_undo(request: UndoRequest, machine: Machine, moves: Iterable[Move]) -> Checked:
    recorded = next((each for each in moves if each.id == request.move_id), None)
    if recorded is None:
        raise Refused(Refusal.NOT_FOUND, f"there is no move {request.move_id}, or it is forgotten")
    if not recorded.runs:
        raise Refused(Refusal.INVALID, f"move {request.move_id} has moved nothing that could be put back")
    pid = recorded.process.pid
    process = _look(machine, pid)
    if process.id != recorded.process:
        raise Refused(Refusal.NOT_FOUND, f"the process of move {request.move_id} is gone: {pid} is another one now")
    return Checked(process=process.id, comm=process.comm)


def _look(machine: Machine, pid: int) -> ProcessSample:
    process = machine.look(pid)
    if process is None:
        raise Refused(Refusal.NOT_FOUND, f"there is no process {pid}")
    return process


def _pairs(request: MoveRequest, machine: Machine) -> dict[NodeId, NodeId]:
    topology = machine.topology()
    for what, nodes in (("to", request.targets), ("from", request.sources or frozenset())):
        offline = nodes - set(topology.node_ids)
        if offline:
            raise Refused(Refusal.INVALID, f'"{what}": node {format_id_list(offline)} is not online')
        bare = nodes - topology.memory_nodes
        if bare:
            raise Refused(Refusal.INVALID, f'"{what}": node {format_id_list(bare)} has no memory')
    sources = topology.memory_nodes - request.targets if request.sources is None else request.sources
    pairs = target_of(sources, request.targets)
    if not pairs:
        raise Refused(Refusal.INVALID, "nothing would move: every node would keep what it has")
    return pairs
