/* SPDX-License-Identifier: MIT */
/* Reading a procfs: which numbers a directory lists, and one stat line. What follows from them is the caller's affair. */
#ifndef BALANCERD_NATIVE_PROCFS_H
#define BALANCERD_NATIVE_PROCFS_H

#include <stddef.h>
#include <stdint.h>

#include "core.h"

#define BAL_STAT_FIELDS 40

/* Fields of a stat line, as proc_pid_stat(5) numbers them. */
enum { PPID = 4, FLAGS = 9, MINFLT = 10, MAJFLT = 12, UTIME = 14, STIME = 15, NUM_THREADS = 20, STARTTIME = 22, RSS = 24,
       PROCESSOR = 39 };

struct bal_stat {
	uint64_t field[BAL_STAT_FIELDS]; /* negative numbers wrap; none of those we use is */
	char comm[BAL_COMM + 1];
};

struct bal_ids {
	int32_t *id; /* ascending, none twice; to be freed by the caller, also after an error */
	size_t n;
};

/* A descriptor of a directory that can be listed, from its start, though dir_fd may be O_PATH; or -errno. */
int bal_open_directory(int dir_fd, const char *path);

/* The numbers that name directories of processes or threads. Errors: getdents64(2), ENOMEM. */
int bal_list_ids(int fd, struct bal_ids *ret);

/* A descriptor of ID/stat, or -errno. */
int bal_open_stat(int dir_fd, int id);

/* Errors: ESRCH when its process is gone, whoever has its number now; EBADMSG when it is no stat line. */
int bal_read_stat(int fd, struct bal_stat *ret);

#endif
