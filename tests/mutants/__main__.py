"""How many of the faults put into modules of engine/ and policies/ their tests find.

    python -m tests.mutants [--sample N] [--seed S] [--keep] [MODULE ...]

"engine/gate" is judged by the unit tests of its name alone (tests/mutants/judges.py); without a module all are tried,
without --sample every fault of each. What survives is told as a change; some of them change nothing that anybody could
see. About half a second for each fault. --keep keeps the figures for tests/bench/MUTATION.md, and writes it.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from random import Random

from tests.bench import mutation
from tests.mutants.faults import possible_faults, sampled
from tests.mutants.judges import ROOT, judges_of, modules
from tests.mutants.trial import attempt, load, prepare


def judge(module: str, sample: int | None, seed: int) -> mutation.Run:
    """Try faults of one module. Raises SystemExit when its tests fail without any."""
    path = ROOT / "balancerd" / f"{module}.py"
    source, tests, name = path.read_text("utf-8"), judges_of(module), f"balancerd.{module.replace('/', '.')}"
    load(tests)
    plain = attempt(name, str(path), None, tests, cpu_seconds=600)
    if not plain.passed:
        sys.exit(f"{module}: {' '.join(tests) or 'no tests'}: status {plain.status} without any fault")
    faults = possible_faults(source)
    chance = Random(f"{seed} {module}")  # noqa: S311 - repeatable, not secret
    mutants = sampled(source, str(path), faults, wanted=sample, chance=chance)
    tried, survived = 0, []
    for mutant in mutants:
        tried += 1
        if attempt(name, str(path), mutant.code, tests, cpu_seconds=5 + 5 * plain.cpu_seconds).passed:
            survived.append(mutant.told)
    return mutation.Run(
        module=module,
        tests=tests,
        possible=len(faults),
        commit=mutation.commit(),
        sample=sample,
        seed=seed,
        tried=tried,
        survived=tuple(sorted(survived, key=lambda line: int(line.partition(":")[0]))),
    )


def main(arguments: Sequence[str]) -> int:
    """Judge those named, or all; print a line for each, and what survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, metavar="N", help="so many faults of each module, by chance")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="which of them")
    parser.add_argument("--keep", action="store_true", help="keep the figures for MUTATION.md")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="engine/gate, policies/drain ...")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.modules) - set(modules()))
    if unknown:
        parser.error(f"no such module: {', '.join(unknown)}; there are {', '.join(modules())}")
    with tempfile.TemporaryDirectory() as storage:
        prepare(storage)
        for module in given.modules or modules():
            run = judge(module, given.sample, given.seed)
            print(f"{module}: {run.tried} of {run.possible} faults, {run.found} found", flush=True)
            for line in run.survived:
                print(f"    {line}", flush=True)
            if given.keep:
                mutation.keep(run)
    return mutation.main() if given.keep else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
