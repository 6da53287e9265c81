"""The pure middle of a tick, and tick itself, which calls the ports.

    select     who deserves a closer look; looks: how soon the next one
    gate       what a move costs and wins: the arithmetic that policies share
    homes      where a process is at home; receding: does its memory come by itself; progress: is the rest of a move
               worth going on; room: what a node can take;
               overflow: where that goes which does not fit
    plan       one arbitration of all decisions; movable, ranges: which parts of a process it is about
    tick       the order of things; story: what it meant for each process
    advice     where something new had best be placed; leases: what was promised to whom, and until when

What is remembered from tick to tick, and through a reload, is one `memory.EngineMemory`:

    ledger     how far each pass has come, and its verdict; holds: who is left alone until when;
               quarantine: which ranges are
    budgets    token buckets of machine, process, pair of nodes, and eviction
    moves      what was moved from where, for undo
    trust      what moves came to: a part first, the rest once that has stayed; pause: where moving went wrong
    copying    how fast the kernel copies
    returns    whether it stays there: checks that are due, ping-pong
    workloads  who belongs to which workload; accounts: the sums over the processes of one

Plan reads them, tick writes them, after the facts. An operator's command reads the budgets and writes through
`EngineMemory.record_command`. Time is always an argument.
"""
