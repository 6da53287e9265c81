"""Access sources: who touches which memory of the processes that a policy wants watched."""
