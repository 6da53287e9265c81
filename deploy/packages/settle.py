"""Make a virtual environment, filled where a package is built, one that lives elsewhere: settle.py BUILT PLACE.

Paths of the build go; so does what pip would want, for here dpkg knows the files. Byte code comes along: the daemon's
user could not write it. It does not ask for the time of its source, which dpkg may change.
"""

import compileall
import py_compile
import shutil
import sys
from pathlib import Path

SCRIPTS = {"balancerd", "balancerctl"}
OF_PIP = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


def main(built: Path, place: Path) -> int:
    """Rewrite what names BUILT; return the exit status. SystemExit when something still does."""
    interpreter = f"python{sys.version_info.major}.{sys.version_info.minor}"
    keep = {*SCRIPTS, "python", "python3", interpreter}
    for program in (built / "bin").iterdir():
        if program.name not in keep:
            program.unlink()
    for name in SCRIPTS:
        script = built / "bin" / name
        _, _, body = script.read_text(encoding="utf-8").partition("\n")
        script.write_text(f"#!{place}/bin/python3\n{body}", encoding="utf-8")
    settings = built / "pyvenv.cfg"
    lines = settings.read_text(encoding="utf-8").splitlines(keepends=True)
    settings.write_text("".join(line for line in lines if not line.startswith("command")), encoding="utf-8")
    shutil.rmtree(built / "include", ignore_errors=True)
    packages = built / "lib" / interpreter / "site-packages"
    for name in OF_PIP:
        for path in packages.glob(f"*.dist-info/{name}"):
            path.unlink()
    for path in packages.rglob("*.py"):
        path.chmod(0o644)
    if not compileall.compile_dir(
        packages,
        quiet=1,
        stripdir=str(built.resolve()),
        prependdir=str(place),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    ):
        return 1
    folder = str(built.resolve()).encode()
    strays = [str(path) for path in built.rglob("*") if path.is_file() and folder in path.read_bytes()]
    if strays:
        sys.exit("these name the folder of the build: " + ", ".join(strays))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
