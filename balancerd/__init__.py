"""balancerd keeps every process's memory on the NUMA node where its threads run.

One tick, start to finish (`engine.tick`); data flows one way and comes back as a report:

    wait -> survey -> select -> sample -> verify -> decide -> plan -> migrate -> report

1. `Clock.wait_until()` returns, once the tick is due and the scan budget allows it; `Kernel.survey()` reads the cheap
   files of the processes whose turn it is, and tells the others as they were.
2. `engine.select` says which processes deserve a closer look, within the scan budget.
3. `Kernel.sample()` estimates which node holds their pages, and how sure that is; with what is still known of the
   others this makes the Snapshot. Where a policy judges by accesses, `AccessWatch.read()` adds which threads touch
   which memory, of the few processes that it wants watched, and a `HeatWatch` how much it is used.
4. `Kernel.verify()` asks where pages moved earlier are now; what has come back is left alone for a while.
5. `Policy.decide(Window(now, before))` returns a Decision, an Eviction, a Steer or a Skip for every eligible process. A
   policy that fails at it is asked no more (`engine.deciding`).
6. `engine.trust` judges what moved before: the first move of a process begins with a part, and what did not stay is
   held back. `engine.plan` arbitrates: places of policies, other managers, pressure, holds, cpusets, quarantine,
   watermarks, budgets, mempolicies. What it turns down it keeps, with the reason. Mempolicies cost time in proportion
   to memory, so they are read only now, by `Kernel.sample()` again, for those that would move; then it plans anew.
7. `Kernel.steer(step)` takes threads to their memory, written down before so that it can be undone.
   `Kernel.begin_migration(step)` checks the process's identity and moves, by calls that copy on a CPU near the memory;
   each page ends under a status. A process rests from calls as much as they hold it up; meanwhile `engine.together`
   gives the next one its turn.
8. The TickReport goes to every Sink: metrics, one log line, the control socket and its live streams, the page. What
   is worth remembering of it (`engine.chronicle`) goes to the history and, under systemd, to the journal.

Until the next tick is due, the loop works on operator's commands (`jobs`), slice by slice, through the same Kernel and
the same budgets; what they did is in the next report.

Only the calls of Clock and Kernel touch the world; the rest is pure. The rooms, top may import lower, never
sideways (checked by `lint-imports`, the contract is in pyproject.toml):

    cli > replaying > wiring > outlets > settings > stack > daemon | control | web
        > kernel | simulation | trace | history | metrics | log | systemd | plugins | policies | jobs | overrun
        | precedence | streaming
        > engine > ports > config > model | native
"""

__version__ = "0.1.0"
