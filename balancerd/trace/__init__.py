"""Record and replay: what a tick was told, written down in order, and told again to the same engine and policies.

    Tap (in the daemon's loop) -> Recorder (a queue, encoded by who asks) -> lines -> FILE -> Stage -> the engine again

`tap` wraps the ports that a tick touches, `recorder` hands out what was told, in `records` of `codec`, under the
names of `cloak`. `reader` reads a file, `stage` answers from it, `replay` runs ticks over it, `canon` writes down what
they decided, and `compare` finds where two runs differ. Pure but for the reader: no module here knows sockets.

A trace is gzip of JSON lines. The first is the header: format, versions, the configuration that held, the topology. The
second tells the placements that were known when the recording began. Then one line for each tick, and one for the end,
which is missing where the recording broke off; so is the rest of the last line, then.

What a policy remembers of the time before the recording is not in it: of a daemon that has run for long, replay decides
the first ticks from less than the daemon knew. Each tick's line has a digest of what the daemon decided, so that replay
tells from where on it decides the same.
"""
