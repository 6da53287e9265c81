"""What a daemon that is as good as root does without: shells, code made of texts, formats that run what they hold."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "balancerd").rglob("*.py"))

MODULES = {
    *("pickle", "cPickle", "dill", "marshal", "shelve", "dbm", "code", "codeop", "runpy", "pty", "telnetlib"),
    *("xml", "xmlrpc", "imp", "commands", "ftplib"),  # expat itself is below xml, see READS_XML
}
CALLS = {
    *("eval", "exec", "compile", "__import__", "breakpoint", "input"),
    *("os.system", "os.popen", "os.spawnl", "os.spawnv", "os.execv", "os.execve", "os.execvp", "os.fork"),
    *("tempfile.mktemp", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"),
}
READS_XML = "balancerd/kernel/neighbours/libvirt.py"
"""What libvirt has written as root, by expat alone, which knows no other file and bounds what entities grow to."""

STARTS_PROGRAMS = {
    "balancerd/kernel/doctor/probes.py",
    "balancerd/cli/service/changes.py",
    "balancerd/cli/service/command.py",
}
"""The doctor makes a process of another user to look at, balancerctl service asks systemd. The daemon starts none."""


def faults(tree: ast.AST) -> Iterator[str]:
    """Yield what a module must not have, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            source = node.module if isinstance(node, ast.ImportFrom) else None
            for name in [source or ""] if source else [alias.name for alias in node.names]:
                if name.partition(".")[0] in MODULES:
                    yield f"{node.lineno}: import {name}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS:
                yield f"{node.lineno}: {called}"
            for keyword in node.keywords:
                shell = keyword.arg == "shell" and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                )
                if shell:
                    yield f"{node.lineno}: {called}(shell=...)"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("eval(x)", "1: eval"),
        ("import os\nos.system(x)", "2: os.system"),
        ("import xml.etree.ElementTree", "1: import xml.etree.ElementTree"),
        ("from pickle import loads", "1: import pickle"),
        ("import subprocess\nsubprocess.run(x, shell=True)", "2: subprocess.run(shell=...)"),
        ("import subprocess\nsubprocess.run(x, shell=y)", "2: subprocess.run(shell=...)"),
        ("yaml.load(x)", "1: yaml.load"),
        ("re.compile(x)\nself.exec(x)\nsubprocess.run(x, shell=False)", None),
    ],
)
def test_what_is_looked_for_is_found(text: str, found: str | None) -> None:
    assert list(faults(ast.parse(text))) == ([] if found is None else [found])


def test_no_module_runs_a_shell_or_what_a_text_holds() -> None:
    assert len(FILES) > 300
    found = [f"{path.relative_to(ROOT)}:{each}" for path in FILES for each in faults(ast.parse(path.read_bytes()))]
    assert [each.rpartition(":")[2] for each in found if each.startswith(READS_XML)] == [" import xml.parsers"]
    assert [each for each in found if not each.startswith(READS_XML)] == []


def test_only_the_doctor_and_installing_the_service_start_a_program() -> None:
    starting = {
        str(path.relative_to(ROOT))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute | ast.Name)
        and ast.unparse(node).startswith(("subprocess.", "os.posix_spawn"))
    }
    assert starting == STARTS_PROGRAMS


def test_no_room_that_tells_anybody_anything_knows_command_lines_or_programs() -> None:
    """They may hold secrets; rules ask for them, and nobody is told."""
    told = {
        (str(path.relative_to(ROOT)), node.lineno)
        for path in FILES
        if path.relative_to(ROOT).parts[1]
        in {"control", "web", "metrics", "log", "history", "systemd.py", "streaming.py"}
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and node.attr in {"cmdline", "exe"}
    }
    assert told == set()


def test_the_core_in_c_starts_none_either_and_copies_no_text_without_a_bound() -> None:
    sources = sorted((ROOT / "balancerd/native").glob("*.[ch]"))
    assert len(sources) > 15
    unbounded = ("system(", "popen(", "execve(", "execvp(", "strcpy(", "strcat(", "sprintf(", "vsprintf(", "gets(")
    for path in sources:
        if path.name == "_core.c":  # cffi's
            continue
        text = path.read_text("utf-8")
        words = {word for word in unbounded for at in [text.find(word)] if at >= 0 and not text[at - 1].isalnum()}
        assert words == set(), path
