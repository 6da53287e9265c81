"""Which plain YAML scalars are numbers, booleans or null: the core schema of YAML 1.2.

Owns that `on`, `yes` and `1:30` are texts and that a number such as 0123, which YAML 1.1 and 1.2 read differently, is
refused. Source: https://yaml.org/spec/1.2.2/#103-core-schema. It must not know files or settings.
"""

import re
from typing import Final

from balancerd.config.nodes import Value

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LONGEST_NUMBER: Final = 64  # anything longer is a text: no setting needs it, and converting it may be slow


def resolve(text: str) -> Value:
    """The value of an unquoted scalar. Raises ValueError for integers with leading zeros."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INTEGER.fullmatch(text):
        digits = text.lstrip("-+")
        if len(digits) > 1 and digits.startswith("0"):
            raise ValueError(
                f'{text} is octal to YAML 1.1 and decimal to YAML 1.2: write {int(text)}, or "{text}" for a text'
            )
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text) or _SPECIAL.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
