"""`balancerctl top`: the machine, its workloads and processes, as they are at each tick.

command  the command: options, and which of the two views
frame    one tick as both views get it, and what it means: pure
marks    bars and sparklines as text: pure
rows     the tables, cell by cell: pure
batch    plain text, again and again
feed     the thread that hears of ticks: by the stream, or by asking now and then
drawing  what the live view draws, as rich text: pure
app      the live view, and screens, what opens over it: the only ones that import textual

Nothing is imported here.
"""
