"""Runs a command under a seccomp profile: `python -m tests.unit.deploy.confined PROFILE [--fatal] COMMAND...`.

Reads what the OCI runtime specification calls "seccomp" (its config-linux.md) and hands it to libseccomp, as runc does:
calls that this architecture has not are left out. `--fatal` kills the process at a call that the profile does not name.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pyseccomp

COMPARISONS = {"SCMP_CMP_EQ": pyseccomp.EQ, "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ}


def number_of(call: str) -> int | None:
    """The number of a system call, None where this architecture has no such call."""
    number = int(pyseccomp.resolve_syscall(pyseccomp.system_arch(), call))
    return None if number < 0 else number


def confine(profile: dict[str, Any], *, fatal: bool) -> None:
    """Put this process, and all that it will execute, under the profile. Raises OSError or KeyError."""
    default = _action(profile["defaultAction"], profile["defaultErrnoRet"])
    rules = pyseccomp.SyscallFilter(defaction=pyseccomp.KILL_PROCESS if fatal else default)
    for rule in profile["syscalls"]:
        action = _action(rule["action"], rule.get("errnoRet", 1))
        for call in rule["names"]:
            if number_of(call) is not None:
                rules.add_rule(action, call, *map(_argument, rule.get("args", [])))
    rules.load()


def _action(name: str, error: int) -> int:
    return int({"SCMP_ACT_ALLOW": pyseccomp.ALLOW, "SCMP_ACT_ERRNO": pyseccomp.ERRNO(error)}[name])


def _argument(given: dict[str, Any]) -> pyseccomp.Arg:
    return pyseccomp.Arg(given["index"], COMPARISONS[given["op"]], given["value"], given.get("valueTwo", 0))


if __name__ == "__main__":
    profile, *command = sys.argv[1:]
    fatal = command[0] == "--fatal"
    confine(json.loads(Path(profile).read_bytes()), fatal=fatal)
    command = command[fatal:]
    os.execvp(command[0], command)  # noqa: S606 - the command is the caller's
