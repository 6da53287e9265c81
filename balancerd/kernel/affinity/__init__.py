"""Threads that are moved to memory: their affinities, changed and given back, with a journal that outlives a crash."""
