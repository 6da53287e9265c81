"""The faults that cosmic-ray knows to make in a source, one at a time."""

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from types import CodeType
from typing import Final

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from tests.mutants.silent import is_silent, silent_spans
from tests.mutants.words import told

SAME: Final = frozenset(
    f"core/ReplaceComparisonOperator_{each}" for each in ("Eq_Is", "Is_Eq", "NotEq_IsNot", "IsNot_NotEq")
)
"""Whether equal things are identical is the interpreter's affair; None and members of enumerations always are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Which operator is applied, and to which of the places where it can be, as cosmic-ray counts them."""

    operator: str
    occurrence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A source with a fault in it, and the fault in a line."""

    source: str
    code: CodeType
    told: str


def possible_faults(source: str) -> list[Fault]:
    """Return all that a test could judge, in an order of their own."""
    spans = silent_spans(source)
    nodes = list(ast_nodes(get_ast(source)))
    found = []
    for name in sorted(set(operator_names()) - SAME):
        if get_operator(name).arguments():
            continue  # those ask which variable they shall replace
        operator = get_operator(name)()
        places = (start for node in nodes for start, _end in operator.mutation_positions(node))
        found += [
            Fault(operator=name, occurrence=occurrence)
            for occurrence, place in enumerate(places)
            if not is_silent(place, spans)
        ]
    return found


def sampled(source: str, path: str, faults: list[Fault], *, wanted: int | None, chance: Random) -> Iterator[Mutant]:
    """Return `wanted` of them by chance, or all; what is no Python, or the same program, is left out for another."""
    count = 0
    for fault in chance.sample(faults, len(faults)):
        if count == wanted:
            return
        mutant = mutant_of(source, path, fault)
        if mutant is not None:
            count += 1
            yield mutant


def mutant_of(source: str, path: str, fault: Fault) -> Mutant | None:
    """Put one fault into a source; None when that is no Python, or the same program."""
    mutated = mutate_code(source, get_operator(fault.operator)(), fault.occurrence)
    if mutated is None:
        raise ValueError(f"{fault} is not of this source")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "is" with a number: pytest would take the warning for an error
        try:
            tree = ast.parse(mutated)
            code = compile(tree, path, "exec", dont_inherit=True)
        except SyntaxError:
            return None
    if ast.dump(tree) == ast.dump(ast.parse(source)):
        return None
    return Mutant(source=mutated, code=code, told=told(source, mutated))
