"""What the dashboard of one machine is about: matchers of the machine and of the workloads that are chosen."""

from typing import Final

HERE: Final = 'cluster=~"$cluster", instance="$instance"'
"""Of the machine."""

CHOSEN: Final = f'{HERE}, workload=~"$workload"'
"""Of its workloads."""
