"""The configuration room: what an operator may set, read from YAML with errors that name file, line, column and fix.

It owns the key names, their units, their defaults and the wording of every complaint about them. `schema` and `units`
are pure and may be imported by decisions; only `loader` opens a file. It must not know what any value is used for.
"""
