"""The policies that ship with balancerd: one file each, pure, found by entry point like anyone else's."""
