"""The fault suite, tried as often as its figures need, and the page of these figures.

`__main__` (options) > `boots` (machines, and what is done to them from outside) > `record` (the files) > `report` (the
page). What is tried is in tests/lab/faults.
"""
