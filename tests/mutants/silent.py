"""Which places of a source no test needs to judge: only people read it, or the import breaks at once."""

import ast
from collections.abc import Iterable
from typing import NamedTuple

Place = tuple[int, int]
"""Line, from 1, and column, from 0."""


class Span(NamedTuple):
    """From one place to another, the last excluded."""

    start: Place
    end: Place


def silent_spans(source: str) -> tuple[Span, ...]:
    """Return annotations, docstrings, `if TYPE_CHECKING`, `__all__`, and the options of dataclasses; only for ASCII."""
    return tuple(_span(node) for parent in ast.walk(ast.parse(source)) for node in _silent(parent))


def is_silent(place: Place, spans: Iterable[Span]) -> bool:
    """Whether a place is in any of the spans."""
    return any(span.start <= place < span.end for span in spans)


def _silent(parent: ast.AST) -> Iterable[ast.expr | ast.stmt]:
    match parent:
        case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
            yield annotation
        case ast.FunctionDef(returns=ast.expr() as returns) | ast.AsyncFunctionDef(returns=ast.expr() as returns):
            yield returns
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            yield parent
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            yield parent
        case ast.Expr(value=ast.Constant(value=str())):
            yield parent
        case ast.Call(func=ast.Name(id="dataclass"), keywords=keywords):
            yield from (keyword.value for keyword in keywords)


def _span(node: ast.expr | ast.stmt) -> Span:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return Span((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))
