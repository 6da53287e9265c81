"""Who runs where: the survey of all processes, and the small files of one."""
