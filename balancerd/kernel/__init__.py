"""The real machine: everything that reads procfs, sysfs or cgroupfs, or calls move_pages(2), is in this room."""
