"""The virtual NUMA machine: a real kernel with any NUMA topology, over this machine's own files.

QEMU boots Debian's kernel with the host's root file system (read-only, under a tmpfs), so the checkout and its virtual
environment are inside at the same paths, and nothing that happens inside survives but the files in OUT.

One boot, from the outside in: `__main__` (verbs) > `runner` (the tests) > `machine` (boot, run, shut down) >
`packages`, `kernel`, `initrd`, `topology`, `qemu`, `link` > `state` (where all of it lives on disk).
"""
