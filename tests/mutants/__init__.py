"""How many of the faults put into the modules of engine/ and policies/ the unit tests of each find.

`silent` says where a fault would tell nothing, `faults` makes the others (cosmic-ray's), `trial` runs tests on one,
`judges` says which. What was found is kept by `tests.bench.mutation`, which writes the page.
"""
