"""How fast the kernel has copied lately, as the mover's own reports tell: between all nodes, and between two."""

from dataclasses import dataclass

from balancerd.model.ids import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCopied:
    """What was copied from one node to another: bytes, and seconds in the calls that did, the older the less."""

    source: NodeId
    target: NodeId
    copied_bytes: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Copying:
    """The same of all pairs together, and of each of which a step told alone. Nothing measured: no bytes."""

    copied_bytes: float = 0.0
    seconds: float = 0.0
    pairs: tuple[PairCopied, ...] = ()

    @property
    def bytes_per_second(self) -> float | None:
        """The rate measured; None before anything was."""
        return self.copied_bytes / self.seconds if self.seconds > 0 else None
