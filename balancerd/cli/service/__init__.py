"""`balancerctl service`: the systemd service of an installation by pip or pipx, which brings no unit of its own.

command    the commands: options, what is printed, and what only root may
files      which files there are, where each belongs, and what is in it
obstacles  why a service of this installation would not work, or must not be
changes    what is to be written or removed, and doing it: all of it or nothing
shipped    links to what systemd/ and config/ hold: the wheel has the files in their places

Nothing is imported here.
"""
