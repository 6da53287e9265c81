"""A NUMA machine in memory, with processes, schedulers and workloads, under the very same engine and policies.

`scenario` says what there is, `machine` lets it live, `kernel` and `clock` show it to the engine as the real
ones would, `run` puts it together and tells what it cost; `optimum` says what the best placement would have cost.
"""
