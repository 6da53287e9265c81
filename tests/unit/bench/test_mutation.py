"""The page of the faults that tests find, from what is kept and nothing else."""

import pytest

from tests.bench.mutation import PAGE, Run, interval, page, read_kept
from tests.mutants.judges import judges_of, modules


def test_the_page_tells_what_is_kept_and_nothing_else() -> None:
    assert PAGE.read_text("utf-8") == page(read_kept())


def test_every_module_is_kept_with_the_tests_that_judge_it() -> None:
    kept = read_kept()
    assert sorted(kept) == sorted(modules())
    assert {module: runs[-1].tests for module, runs in kept.items()} == {module: judges_of(module) for module in kept}


@pytest.mark.parametrize(
    ("found", "tried", "low", "high"),
    [(30, 30, 0.886, 1.0), (0, 30, 0.0, 0.114), (27, 30, 0.744, 0.965), (54, 60, 0.799, 0.953)],
)
def test_few_faults_tell_little(found: int, tried: int, low: float, high: float) -> None:
    assert interval(found, tried) == pytest.approx((low, high), abs=0.001)


def test_the_score_of_a_module_is_that_of_the_last_seed() -> None:
    runs = [
        Run(
            module="engine/gate",
            tests=judges_of("engine/gate"),
            possible=100,
            commit="abc",
            sample=30,
            seed=seed,
            tried=30,
            survived=survived,
        )
        for seed, survived in ((1, ("2: x [a -> b]",) * 2), (2, ("3: x [a -> b]",)))
    ]
    told = page({"engine/gate": runs})
    assert "| `gate` | 100 | 30 | 29 | 97 % | 83 to 99 % | 28/30 |" in told
    assert "| all | 100 | 30 | 29 | 97 % | | |" in told
    assert "No tests of their name" not in told
