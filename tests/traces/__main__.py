"""python -m tests.traces [--record]: write the decisions of all golden traces again, after a change that is meant.

--record makes the traces themselves anew, by engines over machines in memory. Needed only when the form of a trace
changes, or a scene does.
"""

import sys
from collections.abc import Sequence

from tests.traces.golden import NAMES, decisions_of, path_of, text_of
from tests.traces.scenes import SCENES


def main(arguments: Sequence[str]) -> int:
    if arguments not in ([], ["--record"]):
        print(__doc__, file=sys.stderr)
        return 2
    if arguments:
        for name, scene in SCENES.items():
            scene(path_of(name))
    for name in NAMES:
        text_of(name).write_text(decisions_of(path_of(name)), encoding="ascii")
        print(
            f"{path_of(name).name}: {path_of(name).stat().st_size} bytes, {text_of(name).stat().st_size} of decisions"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
