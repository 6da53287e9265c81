"""Which node holds the pages of a process."""
