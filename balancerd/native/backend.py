"""The build backend named in pyproject.toml (PEP 517, PEP 660): write _core.c with cffi, then let setuptools build.

Owns only the step that setuptools lacks: cffi reads cdef.h and writes the glue between CPython's stable ABI and the C
functions declared there. Must not know what those functions do. No hook has options of its own.
"""

import os
import shlex
from pathlib import Path

from cffi import FFI
from setuptools import build_meta
from setuptools.build_meta import (
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

HERE = Path(__file__).resolve().parent
Settings = dict[str, str | list[str] | None]


def generate() -> None:
    """Write _core.c beside this file; its time stamp changes only when its text does, so that rebuilds are cheap."""
    ffi = FFI()
    ffi.cdef((HERE / "cdef.h").read_text(encoding="ascii"))
    ffi.set_source("balancerd.native._core", '#include "core.h"')
    ffi.emit_c_code(str(HERE / "_core.c"))


def build_wheel(
    wheel_directory: str,
    config_settings: Settings | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the wheel; returns its file name (PEP 517).

    The same sources give the same bytes wherever they lie, once SOURCE_DATE_EPOCH says of when they are.
    """
    generate()
    nowhere = f"-ffile-prefix-map={Path.cwd()}=."  # what the debugger is told
    os.environ["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} {shlex.quote(nowhere)}".strip()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str,
    config_settings: Settings | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the extension inside the checkout and a wheel that points there; returns its file name (PEP 660)."""
    generate()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory: str, config_settings: Settings | None = None) -> str:
    """Build the source archive; returns its file name (PEP 517)."""
    generate()
    return build_meta.build_sdist(sdist_directory, config_settings)
