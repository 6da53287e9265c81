"""Which faults are made, whose tests judge a module, and what becomes of a trial."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.mutants.judges import OF_OTHERS, ROOT, UNDER_OTHER_NAMES, judges_of, modules, named_after
from tests.mutants.silent import is_silent, silent_spans
from tests.mutants.trial import imports_of, reached_from
from tests.mutants.words import told

SOURCE = '''\
"""A module of 2 lines."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import far

__all__ = ["FEW", "sum_of"][:2]

FEW: int | None = 3
"""Not 4 - 1."""


@dataclass(frozen=True, slots=True)
class Record:
    few: bool = False


def sum_of(a: int | None, b: "far.X | None" = None, *rest: int | str, c: int | str = 5) -> int | None:
    """Not 1 + 1."""
    return a + 6 if a else b
'''


def test_what_only_people_read_is_silent_and_nothing_else() -> None:
    spans = silent_spans(SOURCE)
    for words in (
        "2 lines",
        "import far",
        "[:2]",
        "int | None = 3",
        "4 - 1",
        "True, s",
        "True)",
        "| None, b",
        "| str, c",
        "| str = 5",
        "1 + 1",
    ):
        assert is_silent(_place(words), spans), words
    assert is_silent(_place("| None:"), spans), "what is returned"
    for words in ("3\n", "None, *rest", "5) ->", "+ 6", "if a else b", "from typing", "False"):
        assert not is_silent(_place(words), spans), words


def _place(words: str) -> tuple[int, int]:
    before = SOURCE[: SOURCE.index(words)]
    return before.count("\n") + 1, len(before) - before.rfind("\n") - 1


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("if x < limit:", "if x <= limit:", "2: if x < limit: [< -> <=]"),
        ("if x < limit:", "if not x < limit:", "2: if x < limit: [x -> not x]"),
        ("x = a / b", "x = a // b", "2: x = a / b [/ -> //]"),
        ("y = 10", "y = 11", "2: y = 10 [10 -> 11]"),
        ("@once\ny = 10", "y = 10", "2: @once [@once y -> y]"),
    ],
)
def test_a_survivor_is_told_by_its_line_and_what_changed_in_it(old: str, new: str, line: str) -> None:
    assert told(f"first\n{old}\nlast\n", f"first\n{new}\nlast\n") == line


def test_every_module_has_tests_that_judge_it_and_no_more_are_borrowed_than_needed() -> None:
    assert [module for module in modules() if not judges_of(module)] == []
    assert sorted(OF_OTHERS) == [module for module in modules() if not named_after(module)]
    assert [other for others in OF_OTHERS.values() for other in others if not named_after(other)] == []
    names = ("test_plan.py", "test_plan_parts.py", "test_arbitration.py")
    assert judges_of("engine/plan") == tuple(f"tests/unit/engine/{name}" for name in names)
    assert [file for files in UNDER_OTHER_NAMES.values() for file in files if not (ROOT / file).exists()] == []


TRIALS = """
import tempfile
from pathlib import Path
from tests.mutants.trial import attempt, load, prepare

TESTS = ["tests/unit/engine/test_gate.py"]
path = Path("balancerd/engine/gate.py")
source = path.read_text()
with tempfile.TemporaryDirectory() as storage:
    prepare(storage)
    load(TESTS)
    for old, new in (
        ("return gain > 0.0", "return gain >= -1.0"),
        ("DISTURBANCE = 2.0", "DISTURBANCE = 4.0 / 2.0"),
        ("    return DISTURBANCE *", "    while True:\\n        bytes_per_second *= 1\\n    return DISTURBANCE *"),
        ("return DISTURBANCE", "return nobody"),
    ):
        assert source.count(old) == 1
        code = compile(source.replace(old, new), str(path), "exec")
        print(attempt("balancerd.engine.gate", str(path), code, TESTS, 2.0).status)
"""


def test_a_trial_finds_what_the_tests_find_and_ends_what_has_no_end() -> None:
    done = subprocess.run([sys.executable, "-c", TRIALS], cwd=ROOT, check=True, capture_output=True, text=True)
    failed, passed, endless, broken = map(int, done.stdout.split())
    assert (failed, passed, broken) == (1, 0, 1)
    assert endless < 0, "ended by a signal"


def test_what_a_fault_can_reach_is_imported_anew_and_nothing_else() -> None:
    imports = {
        "a": imports_of("from b import c"),
        "b": imports_of("import sys"),
        "b.c": imports_of("def f():\n    import d.e\n"),
        "d.e": imports_of("x = 1"),
    }
    assert reached_from("d.e", imports) == {"d.e", "b.c", "a"}
    assert reached_from("b", imports) == {"b", "a"}
    assert reached_from("a", imports) == {"a"}


def test_the_same_seed_draws_the_same_faults_and_each_is_another_program() -> None:
    pytest.importorskip("cosmic_ray", reason="faults are made by cosmic-ray: the extra `mutation`")
    from tests.mutants.faults import possible_faults, sampled

    faults = possible_faults(SOURCE)
    drawn = [
        [each.told for each in sampled(SOURCE, "x.py", faults, wanted=wanted, chance=Random(seed))]  # noqa: S311 - repeatable, not secret
        for wanted, seed in ((4, 1), (4, 1), (4, 2), (None, 1))
    ]
    assert drawn[0] == drawn[1] == drawn[3][:4]
    assert drawn[0] != drawn[2]
    every = drawn[3]
    assert len(every) == len(set(every))
    assert {line.partition(":")[0] for line in every} == {"11", "15", "17", "20", "22"}
    assert "22: return a + 6 if a else b [a -> not a]" in every


def test_a_run_is_kept_in_the_place_of_the_earlier_one_of_its_seed(tmp_path: Path) -> None:
    from tests.bench.mutation import Run, keep, read_kept

    runs = [
        Run(
            module="engine/gate",
            tests=("a.py",),
            possible=9,
            commit="c",
            sample=3,
            seed=seed,
            tried=tried,
            survived=("1: x [a -> b]",),
        )
        for seed, tried in ((2, 3), (1, 3), (2, 2))
    ]
    for run in runs:
        keep(run, tmp_path)
    assert read_kept(tmp_path) == {"engine/gate": [runs[1], runs[2]]}
    (document, _) = json.loads((tmp_path / "engine-gate.json").read_text("utf-8"))
    assert document["found"] == 2
