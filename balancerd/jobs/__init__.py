"""Operator's commands: accepted at any time, carried out by the daemon's loop in slices between ticks.

nodes    which node goes to which, for two sets of nodes; pure
record   what a job is, as it is told: requests, states, the account; pure
account  the sums of a job over its slices; pure
means    what a slice is allowed now: budgets, room, cpuset
works    the kinds of work: move, evict, undo, each one slice at a time
switches what operators switch: a pause of everything, another mode
board    the jobs themselves: HTTP threads submit and read, the loop works

Nothing is imported here.
"""
