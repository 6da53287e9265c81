"""The page in a real browser, over a machine of four nodes that exists only in memory, and over the real daemon."""
