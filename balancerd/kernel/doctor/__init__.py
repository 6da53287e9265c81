"""Whether this machine and this user can do what balancerd needs."""
