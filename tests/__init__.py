"""Tests of balancerd: unit, lab (the virtual NUMA machine) and bench."""
