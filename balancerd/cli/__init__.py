"""The two commands: `balancerd` (daemon.py) and `balancerctl` (control.py, one module for each of its commands).

Nothing is imported here: a command that only asks the daemon must stay light.
"""
