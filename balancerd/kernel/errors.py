"""What can go wrong while the kernel room looks at the machine. Each error says where, none what to do about it."""


class ParseError(ValueError):
    """A file of the kernel does not read as documented.

    `line_number` counts from 1; 0 means the file as a whole. `line` is the offending text, and it is cut short, as
    `what` is, which may quote it.
    """

    def __init__(self, path: str, line_number: int, line: bytes, what: str) -> None:
        self.path = path
        self.line_number = line_number
        self.line = line[:200].decode("utf-8", "backslashreplace")
        self.what = what[:200]
        super().__init__(f"{path}:{line_number}: {self.what}: {self.line!r}")


class ProcessGoneError(Exception):
    """The process exited, or its pid belongs to another process by now."""


class BlockedError(Exception):
    """The process could not be read in time: somebody holds a lock of its address space, or nobody is free to wait."""


class LateError(BlockedError):
    """A read has begun and is not back in time. It still runs, and what it finds will be dropped."""


class ClaimedError(Exception):
    """Somebody else is moving this memory: another part of this process, or another balancerd."""


class ChangedError(Exception):
    """The mappings of the process have changed so much that nothing is left of what was asked for."""


class AccountingError(Exception):
    """Pages went into a call and did not come out under any status: a defect, never to be hidden."""
