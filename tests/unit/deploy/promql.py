"""Reads an expression as Prometheus does, and says what is wrong with it beyond its grammar.

Names and labels must exist, counters are only looked at by their rate, and two sides of an operator must be able to
match. Any matcher may be a Grafana variable. It must not know which metrics there are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import promql_parser as ast

from tests.unit.deploy.catalogue import Series

BY_COUNTER = frozenset({"rate", "irate", "increase", "resets"})
BY_GAUGE = frozenset({"changes", "delta", "deriv", "avg_over_time", "max_over_time", "min_over_time", "last_over_time"})
SCALARS = frozenset({"time", "scalar"})
KEEPING = frozenset({"topk", "bottomk"})
"""Aggregations that choose among series and leave their labels."""

SET_OPERATORS = frozenset({"and", "or", "unless"})

VARIABLES = {
    "$__rate_interval": "5m",
    "$__interval": "1m",
    "$__range": "6h",
}
"""What stands where a duration belongs; all others stand in matchers."""

VARIABLE = re.compile(r"\$\{?\w+\}?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The labels that the result can have; None for a scalar, which has no series."""

    labels: frozenset[str] | None
    kind: str = "gauge"


class WrongExpressionError(AssertionError):
    """An expression that cannot do what it says."""


def without_variables(expression: str) -> str:
    """Return the expression with Grafana's variables replaced by what they could be."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return VARIABLE.sub(".*", expression)


def check(expression: str, known: Mapping[str, Series]) -> frozenset[str]:
    """Return the labels that the result can have.

    Raises WrongExpressionError, or ValueError where it cannot be parsed.
    """
    found = _Reader(known).read(ast.parse(expression))
    return frozenset() if found.labels is None else found.labels


class _Reader:
    def __init__(self, known: Mapping[str, Series]) -> None:
        self._known = known

    def read(self, expr: ast.Expr) -> Found:
        found = self._any(expr)
        if found.kind != "gauge":
            raise WrongExpressionError(f"a {found.kind} is looked at without its rate: {expr.prettify()}")
        return found

    def _any(self, expr: ast.Expr) -> Found:
        if isinstance(expr, ast.NumberLiteral):
            return Found(labels=None)
        if isinstance(expr, ast.ParenExpr | ast.UnaryExpr):
            return self._any(expr.expr)
        if isinstance(expr, ast.VectorSelector):
            return self._selector(expr)
        if isinstance(expr, ast.Call):
            return self._call(expr)
        if isinstance(expr, ast.AggregateExpr):
            return self._aggregate(expr)
        if isinstance(expr, ast.BinaryExpr):
            return self._binary(expr)
        raise WrongExpressionError(f"not expected here: {type(expr).__name__} {expr.prettify()}")

    def _selector(self, selector: ast.VectorSelector) -> Found:
        name = selector.name
        if name is None or name not in self._known:
            raise WrongExpressionError(f"there is no metric {name}")
        series = self._known[name]
        for matcher in selector.matchers.matchers:
            if matcher.name not in series.labels:
                raise WrongExpressionError(f"{name} has no label {matcher.name}")
            values = series.values.get(matcher.name)
            if values is not None and matcher.value != ".*":
                for value in matcher.value.split("|"):
                    if value not in values:
                        raise WrongExpressionError(f"{matcher.name} of {name} is never {value!r}")
        return Found(labels=series.labels, kind=series.kind)

    def _call(self, call: ast.Call) -> Found:
        name = call.func.name
        if name in SCALARS | {"vector"}:
            return Found(labels=frozenset() if name == "vector" else None)
        if name == "absent":
            self.read(call.args[0])
            equal = call.args[0].matchers.matchers if isinstance(call.args[0], ast.VectorSelector) else []
            return Found(labels=frozenset(m.name for m in equal if m.op == ast.MatchOp.Equal))
        if name == "histogram_quantile":
            return self._quantile(call)
        (over,) = call.args
        if not isinstance(over, ast.MatrixSelector) or name not in BY_COUNTER | BY_GAUGE:
            raise WrongExpressionError(f"not expected here: {call.prettify()}")
        found = self._selector(over.vector_selector)
        if (found.kind == "gauge") is (name in BY_COUNTER):
            raise WrongExpressionError(f"{name} of a {found.kind}: {call.prettify()}")
        return Found(labels=found.labels, kind="bucket" if found.kind == "bucket" else "gauge")

    def _quantile(self, call: ast.Call) -> Found:
        found = self._any(call.args[1])
        if found.kind != "bucket" or found.labels is None or "le" not in found.labels:
            raise WrongExpressionError(f"not over buckets by le: {call.prettify()}")
        return Found(labels=found.labels - {"le"})

    def _aggregate(self, aggregate: ast.AggregateExpr) -> Found:
        found = self._any(aggregate.expr)
        labels = frozenset() if found.labels is None else found.labels
        if found.kind == "counter":
            raise WrongExpressionError(f"adds up counters before their rate: {aggregate.prettify()}")
        if str(aggregate.op) in KEEPING:
            return found
        if aggregate.modifier is None:
            return Found(labels=frozenset(), kind=found.kind)
        named = frozenset(aggregate.modifier.labels)
        if not named <= labels:
            raise WrongExpressionError(f"no label {', '.join(sorted(named - labels))} in {aggregate.expr.prettify()}")
        is_by = aggregate.modifier.type == ast.AggModifierType.By
        return Found(labels=named if is_by else labels - named, kind=found.kind)

    def _binary(self, binary: ast.BinaryExpr) -> Found:
        left, right = self.read(binary.lhs), self.read(binary.rhs)
        if left.labels is None or right.labels is None:
            return Found(labels=right.labels if left.labels is None else left.labels)
        operator = str(binary.op)
        matching = binary.modifier.matching if binary.modifier is not None else None
        kept_left, kept_right = left.labels, right.labels
        if matching is not None and matching.type == ast.LabelModifierType.Include:
            named = frozenset(matching.labels)
            if not named <= left.labels & right.labels:
                raise WrongExpressionError(f"both sides must have {', '.join(sorted(named))}: {binary.prettify()}")
            kept_left = kept_right = named
        elif matching is not None:
            kept_left, kept_right = left.labels - {*matching.labels}, right.labels - {*matching.labels}
        is_fallback = operator == "or" and not right.labels  # or vector(0)
        if kept_left != kept_right and not is_fallback:
            raise WrongExpressionError(
                f"{sorted(kept_left ^ kept_right)} is on one side only, nothing matches: {binary.prettify()}"
            )
        if operator in SET_OPERATORS:
            return Found(labels=left.labels | right.labels if operator == "or" else left.labels)
        group = binary.modifier.group_labels if binary.modifier is not None else None
        card = "" if binary.modifier is None else repr(binary.modifier.card)
        if "ManyToOne" in card:
            return Found(labels=left.labels | {*(group or ())})
        if "OneToMany" in card:
            return Found(labels=right.labels | {*(group or ())})
        return Found(labels=kept_left)
