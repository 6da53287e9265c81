"""The search: what reasoning says of small cases, all choices one by one, bounded work, always the same answer."""

import itertools
from random import Random

import pytest

from balancerd.engine.packing import GIB, MOST_TRIES, Item, Option, Slack, pack
from balancerd.model.ids import NodeId
from tests.unit.fakes import N0, N1, N2

NOTHING = Slack(memory_bytes={})


def at(node: NodeId, gib: float, cost: float, cores: float = 0.0) -> Option:
    return Option(cost=cost, added_bytes={node: int(gib * GIB)}, added_cores={node: cores} if cores else {})


def room(*gib: float) -> Slack:
    return Slack(memory_bytes={NodeId(node): int(size * GIB) for node, size in enumerate(gib)})


@pytest.mark.parametrize(
    ("items", "slack", "chosen"),
    [
        pytest.param([[at(N0, 1, 1.0), at(N1, 1, 0.5)]], room(1, 1), (1,), id="the cheaper one"),
        pytest.param([[at(N0, 1, 1.0), at(N1, 2, 0.5)]], room(1, 1), (0,), id="unless it does not fit"),
        pytest.param([[at(N0, 9, 1.0), at(N1, 8, 2.0)]], room(1, 1), (1,), id="the least that overflows"),
        pytest.param(
            [[at(N0, 1, 1.0), at(N2, 9, 0.5)]], room(1, 1), (1,), id="a node that is not named takes anything"
        ),
        pytest.param(
            [[at(N0, 1, 0.0), at(N1, 1, 1.0)], [at(N0, 1, 0.0), at(N1, 1, 5.0)]],
            room(1, 1),
            (1, 0),
            id="who loses least makes way",
        ),
        pytest.param(
            [[at(N0, 2, 3.0), at(N1, 2, 0.0)], [at(N1, 2, 2.0), at(N0, 2, 0.0)]],
            room(2, 2),
            (1, 1),
            id="two change places",
        ),
        pytest.param(
            [[at(N0, 2, 0.0), at(N1, 2, 1.0)], [at(N0, 1, 0.0), at(N1, 1, 0.1)], [at(N0, 1, 0.0), at(N1, 1, 0.1)]],
            room(2, 2),
            (0, 1, 1),
            id="two small ones for a large one",
        ),
    ],
)
def test_the_answer_is_what_reasoning_says(items: list[Item], slack: Slack, chosen: tuple[int, ...]) -> None:
    found = pack(items, slack)
    assert found.chosen == chosen
    assert found.cost == sum(item[number].cost for item, number in zip(items, chosen, strict=True))


def test_cores_count_like_memory() -> None:
    items = [[at(N0, 1, 0.0, cores=3.0), at(N1, 1, 1.0, cores=3.0)]] * 2
    slack = Slack(memory_bytes=room(9, 9).memory_bytes, cpu_cores={N0: 4.0, N1: 4.0})
    assert sorted(pack(items, slack).chosen) == [0, 1]
    assert pack(items, room(9, 9)).chosen == (0, 0)


def test_the_largest_first_fit_without_a_gap_whatever_their_order() -> None:
    sizes = [1.25, 1.125, 2.75, 2.5, 2.5, 2.875, 3.0]
    items = [[at(node, size, 0.0) for node in (N0, N1)] for size in sizes]
    assert pack(items, room(8, 8)).over == 0.0


def test_what_overflows_is_told() -> None:
    assert pack([[at(N0, 3, 0.0)]], room(1)).over == pytest.approx(2.0)
    assert pack([], room(-1)).over == pytest.approx(1.0)
    assert pack([], NOTHING).chosen == ()


def random_items(seed: int, n_items: int, n_nodes: int, load: float) -> tuple[list[Item], Slack]:
    """Each item on any node at any cost; the first fits wherever the generator put it, at that load."""
    chance = Random(seed)  # noqa: S311 the same in every run
    sizes = [chance.uniform(0.2, 3.0) for _ in range(n_items)]
    items: list[Item] = [
        [at(NodeId(node), size, chance.choice([0.0, chance.random()])) for node in range(n_nodes)] for size in sizes
    ]
    return items, room(*[sum(sizes) / load / n_nodes] * n_nodes)


def best_cost(items: list[Item], slack: Slack) -> float | None:
    """The least cost of all choices that fit, tried one by one; None when none does."""
    fits = []
    for choice in itertools.product(*(range(len(item)) for item in items)):
        used = dict.fromkeys(slack.memory_bytes, 0)
        for number, item in zip(choice, items, strict=True):
            for node, size in item[number].added_bytes.items():
                used[node] += size
        if all(used[node] <= size for node, size in slack.memory_bytes.items()):
            fits.append(sum(item[number].cost for number, item in zip(choice, items, strict=True)))
    return min(fits, default=None)


def test_it_finds_the_best_of_all_choices_nearly_always() -> None:
    more: list[float] = []
    for seed in range(400):
        items, slack = random_items(seed, 1 + seed % 5, 2 + seed % 2, 0.7)
        best = best_cost(items, slack)
        if best is not None:
            found = pack(items, slack)
            assert found.over == 0.0, "where something fits, what it finds fits"
            more.append(found.cost - best)
    assert len(more) > 200
    assert min(more) > -1e-9
    assert sum(each > 1e-9 for each in more) <= 0.01 * len(more)
    assert max(more) < 0.5


def test_a_round_of_many_is_bounded_and_its_answer_always_the_same() -> None:
    items, slack = random_items(1, 400, 8, 0.95)
    one, two = pack(items, slack, most_tries=2000), pack(items, slack, most_tries=2000)
    assert one == two
    assert one.over == 0.0
    assert not one.is_better_than(pack(items, slack, most_tries=MOST_TRIES))
