"""Texts that name something: a policy, a group, a socket, a directory. Pure; whether it exists is seen later."""

import re
from typing import Annotated, Final, Protocol, TypeVar

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from balancerd.config.units import shorten

_NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
_GROUP_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$"
_LONGEST_SOCKET_PATH_BYTES: Final = 107  # sockaddr_un.sun_path holds 108 with the final NUL, unix(7)


def _check_name(text: str) -> str:
    if not re.fullmatch(_NAME_PATTERN, text):
        raise ValueError(f"expected a name of letters, digits, '-', '_' and '.', got {shorten(text)}")
    return text


def _check_group(text: str) -> str:
    if not re.fullmatch(_GROUP_PATTERN, text):
        raise ValueError(f"expected the name of a group such as adm, got {shorten(text)}")
    return text


def _check_socket(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError(f"expected an absolute path such as /run/balancerd/control.sock, got {shorten(text)}")
    if (length := len(text.encode("utf-8", "surrogateescape"))) > _LONGEST_SOCKET_PATH_BYTES:
        raise ValueError(f"a socket's path has at most {_LONGEST_SOCKET_PATH_BYTES} bytes, this one has {length}")
    return text


def _check_directory(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError(f"expected the absolute path of a directory, got {shorten(text)}")
    return text


Name = Annotated[str, AfterValidator(_check_name), WithJsonSchema({"type": "string", "pattern": _NAME_PATTERN})]
Group = Annotated[str, AfterValidator(_check_group), WithJsonSchema({"type": "string", "pattern": _GROUP_PATTERN})]
SocketPath = Annotated[str, AfterValidator(_check_socket), WithJsonSchema({"type": "string", "pattern": "^/"})]
Directory = Annotated[str, AfterValidator(_check_directory), WithJsonSchema({"type": "string", "pattern": "^/"})]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


NamedT = TypeVar("NamedT", bound=_Named)


def names_differ(what: str) -> AfterValidator:
    """Refuse a second item of the same name; the context tells where, for an error at that very key."""

    def check(named: tuple[NamedT, ...]) -> tuple[NamedT, ...]:
        seen: set[str] = set()
        for index, each in enumerate(named):
            if each.name in seen:
                message = f"there is already a {what} named {shorten(each.name)}: give this one another name"
                raise PydanticCustomError("name_taken", "{message}", {"message": message, "at": (index, "name")})
            seen.add(each.name)
        return named

    return AfterValidator(check)
