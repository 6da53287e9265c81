"""Inside a machine with systemd: a unit with NUMAPolicy=, and what the daemon and the doctor say of it, as JSON.

`python -m tests.lab.placed_unit FOLDER`; started by test_other_managers.py.
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.lab.service import Balancerd
from tests.lab.workloads import binary, mib_by_node

MIB = 72
UNIT = Path("/run/systemd/system/placed.service")


def main() -> int:
    """Start the unit, bound to node 1 while its CPU is on node 0, and wait until the daemon has judged it."""
    command = f"{binary('hog')} base {MIB} 0 0 30"
    UNIT.write_text(f"[Service]\nExecStart={command}\nNUMAPolicy=bind\nNUMAMask=1\n", encoding="ascii")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "start", UNIT.name], check=True)
    shown = subprocess.run(
        ["systemctl", "show", "-P", "MainPID", UNIT.name], check=True, capture_output=True, text=True
    )
    pid = int(shown.stdout)
    with Balancerd(Path(sys.argv[1]), overrides={"select.min_age": "1s", "tick_interval": "1s"}) as daemon:
        told = daemon.wait_for_reason(pid, "managed", 90.0)
        doctor = json.loads(daemon.balancerctl("doctor", "--json").stdout)["checks"]
        answer = {
            "reason": told["reason"],
            "detail": told["detail"],
            "managers": [each["manager"] for each in daemon.status()["managers"] if each["active"]],
            "doctor": next(check["seen"] for check in doctor if check["name"] == "manager-numa-policy"),
            "bound_mib": mib_by_node(pid).get(1, 0.0),
        }
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
