"""The records that flow through a tick. Standard library types only; no record touches the world.

ids        NodeId, ProcessId, and the kernel's list format ("0-3,8") for CPU and node sets
topology   the machine: nodes, CPUs, distances, memory
extent     stretches of an address space
access     who touches which memory: AccessWindow
sample     what was observed: processes, threads, VMAs, placement; Snapshot and Window
decision   what is wanted or left alone, and why: Reason, Decision, Skip
migration  what will be moved and what became of every page: MigrationPlan, MigrationOutcome
report     one tick as told to every sink: TickReport

page_status, placement_method and printable stand alone: commands that only ask the daemon use them, and start fast.
"""
