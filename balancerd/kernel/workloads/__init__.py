"""What processes belong to: cgroup paths and their names, configured groups, and the memory of whole cgroups."""
