"""Heat sources: how much the memory of a process is used, whoever uses it."""
