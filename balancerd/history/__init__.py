"""What was decided and done, kept in a file that outlives the daemon: sqlite, bounded by rows and bytes.

    Chronicle (in the loop) -> History.emit (a queue) -> its own thread -> Store -> history.sqlite <- read_history

`schema` owns the tables, `store` the file: what is in it, how large it gets, when it is not to be trusted. `book` owns
the queue and the thread: the loop waits for no disk. `reader` answers questions, in this or any other process, while
the daemon writes or after it has ended; it imports nothing but the standard library and the model.
"""
