"""Golden traces, and what the policies decide of them. `python -m tests.traces` writes the decisions again.

A trace is what an engine was told: it stays when a policy changes. The decisions beside it change then, and show how.
"""
