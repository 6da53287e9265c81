// SPDX-License-Identifier: MIT
/*
 * Reading a procfs: getdents64, openat, pread, parse. Knows the format of a stat line (proc_pid_stat(5)); which
 * processes matter, and when, is the caller's affair.
 */
#define _GNU_SOURCE /* memrchr */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "procfs.h"

#define STAT_BYTES 2048 /* 52 numbers of at most 20 digits, and a name */
#define LISTING_BYTES 32768

struct dirent64 {
	uint64_t d_ino;
	int64_t d_off;
	unsigned short d_reclen;
	unsigned char d_type;
	char d_name[];
};

/* The name may hold anything, also ") R 1": it ends at the last parenthesis of the line. */
static int parse(char *text, size_t length, struct bal_stat *ret)
{
	char *open, *shut, *at;
	size_t n;

	text[length] = '\0';
	open = memchr(text, '(', length);
	shut = memrchr(text, ')', length);
	if (!open || !shut || shut < open || text + length - shut < 4)
		return -EBADMSG;
	n = (size_t)(shut - open - 1);
	if (n > BAL_COMM)
		n = BAL_COMM;
	memcpy(ret->comm, open + 1, n);
	memset(ret->comm + n, 0, sizeof(ret->comm) - n);
	at = shut + 3;
	for (int i = 4; i < BAL_STAT_FIELDS; i++) {
		uint64_t value = 0;
		int negative;

		if (*at++ != ' ')
			return -EBADMSG;
		negative = *at == '-';
		at += negative;
		if (*at < '0' || *at > '9')
			return -EBADMSG;
		for (; *at >= '0' && *at <= '9'; at++)
			value = value * 10 + (uint64_t)(*at - '0');
		ret->field[i] = negative ? 0 - value : value;
	}
	return 0;
}

int bal_open_directory(int dir_fd, const char *path)
{
	int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int bal_open_stat(int dir_fd, int id)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "%d/stat", id);
	fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int bal_read_stat(int fd, struct bal_stat *ret)
{
	char text[STAT_BYTES];
	ssize_t got = pread(fd, text, sizeof(text) - 1, 0);

	if (got < 0)
		return -errno;
	return got ? parse(text, (size_t)got, ret) : -ESRCH;
}

/* The number that a directory of a process is named by, or -1. */
static int parse_id(const char *name)
{
	int64_t id = 0;
	int i;

	for (i = 0; name[i] >= '0' && name[i] <= '9' && i < 10; i++)
		id = id * 10 + (name[i] - '0');
	return i && name[i] == '\0' && id > 0 && id <= INT_MAX ? (int)id : -1;
}

static int compare_ids(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

	return (x > y) - (x < y);
}

/* procfs lists processes by ascending number, but threads by age, and a process may come to be listed twice. */
static void sort(struct bal_ids *ids)
{
	size_t unique = 0, at = 1;

	while (at < ids->n && ids->id[at - 1] < ids->id[at])
		at++;
	if (at >= ids->n)
		return;
	qsort(ids->id, ids->n, sizeof(*ids->id), compare_ids);
	for (at = 0; at < ids->n; at++)
		if (!unique || ids->id[unique - 1] != ids->id[at])
			ids->id[unique++] = ids->id[at];
	ids->n = unique;
}

static int list(int fd, struct bal_ids *ret)
{
	char entries[LISTING_BYTES] __attribute__((aligned(8)));
	const size_t most = LISTING_BYTES / offsetof(struct dirent64, d_name);
	size_t capacity = 0;
	long got;

	while ((got = syscall(SYS_getdents64, fd, entries, sizeof(entries))) > 0) {
		if (capacity - ret->n < most) {
			int32_t *larger = realloc(ret->id, (2 * capacity + most) * sizeof(*larger));

			if (!larger)
				return -ENOMEM;
			ret->id = larger;
			capacity = 2 * capacity + most;
		}
		for (long at = 0; at < got;) {
			const struct dirent64 *entry = (const void *)(entries + at);
			int id = parse_id(entry->d_name);

			if (id > 0)
				ret->id[ret->n++] = id;
			at += entry->d_reclen;
		}
	}
	return got < 0 ? -errno : 0;
}

int bal_list_ids(int fd, struct bal_ids *ret)
{
	int rc;

	*ret = (struct bal_ids){ 0 };
	rc = list(fd, ret);
	sort(ret);
	return rc;
}
