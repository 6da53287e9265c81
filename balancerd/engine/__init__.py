"""The pure middle of a tick: select, gate, plan, ledger; and tick itself, which calls the ports."""
