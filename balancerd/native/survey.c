// SPDX-License-Identifier: MIT
/*
 * Every process, and every thread of one, by one pass over a procfs: getdents64, openat, read, parse. Knows the format
 * of a stat line (proc_pid_stat(5)); which processes matter is the caller's affair.
 */
#define _GNU_SOURCE /* memrchr */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core.h"

#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */
#define STAT_BYTES 2048	      /* 52 numbers of at most 20 digits, and a name */
#define LAST_FIELD 39

/* Fields of a stat line, as proc_pid_stat(5) numbers them. */
enum { PPID = 4, FLAGS = 9, MINFLT = 10, MAJFLT = 12, UTIME = 14, STIME = 15, NUM_THREADS = 20, STARTTIME = 22, RSS = 24,
       PROCESSOR = 39 };

struct stat_line {
	uint64_t field[LAST_FIELD + 1]; /* negative numbers wrap; none of those we use is */
	char state;
	char comm[BAL_COMM + 1];
};

struct dirent64 {
	uint64_t d_ino;
	int64_t d_off;
	unsigned short d_reclen;
	unsigned char d_type;
	char d_name[];
};

/* What to do with one stat line; returns nothing, since no line can stop the pass. */
struct pass {
	void (*take)(struct pass *pass, int id, const struct stat_line *line);
	void *rows;
	size_t capacity;
	uint64_t min_rss_pages;
	struct bal_survey *ret;
};

/* The name may hold anything, also ") R 1": it ends at the last parenthesis of the line. */
static int parse(char *text, size_t length, struct stat_line *ret)
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
	ret->comm[n] = '\0';
	ret->state = shut[2];
	at = shut + 3;
	for (int i = 4; i <= LAST_FIELD; i++) {
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

static int read_stat(int dir_fd, const char *name, struct stat_line *ret)
{
	char path[32], text[STAT_BYTES];
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "%s/stat", name);
	fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	got = read(fd, text, sizeof(text) - 1);
	if (got < 0)
		got = -errno;
	close(fd);
	if (got < 0)
		return (int)got;
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

static int read_all(int dir_fd, struct pass *pass)
{
	char entries[32768] __attribute__((aligned(8)));
	struct bal_survey *ret = pass->ret;
	double began = bal_now_seconds();
	long got;

	while ((got = syscall(SYS_getdents64, dir_fd, entries, sizeof(entries))) > 0) {
		for (long at = 0; at < got;) {
			const struct dirent64 *entry = (const void *)(entries + at);
			int rc, id = parse_id(entry->d_name);
			struct stat_line line;

			at += entry->d_reclen;
			if (id < 0)
				continue;
			rc = read_stat(dir_fd, entry->d_name, &line);
			if (rc == -ENOENT || rc == -ESRCH) {
				ret->vanished++;
			} else if (rc) {
				ret->unreadable++;
			} else {
				ret->processes++;
				pass->take(pass, id, &line);
			}
		}
	}
	ret->seconds = bal_now_seconds() - began;
	return got < 0 ? -errno : 0;
}

static void take_process(struct pass *pass, int id, const struct stat_line *line)
{
	int kernel_thread = (line->field[FLAGS] & PF_KTHREAD) != 0;
	struct bal_survey *ret = pass->ret;
	struct bal_process *row;

	ret->kernel_threads += (uint64_t)kernel_thread;
	if (pass->min_rss_pages && (kernel_thread || line->field[RSS] < pass->min_rss_pages))
		return;
	if (ret->needed++ >= pass->capacity)
		return;
	row = (struct bal_process *)pass->rows + ret->n_rows++;
	*row = (struct bal_process){
		.pid = id,
		.ppid = (int32_t)line->field[PPID],
		.start_ticks = line->field[STARTTIME],
		.cpu_ticks = line->field[UTIME] + line->field[STIME],
		.rss_pages = line->field[RSS],
		.minor_faults = line->field[MINFLT],
		.major_faults = line->field[MAJFLT],
		.n_threads = (int32_t)line->field[NUM_THREADS],
		.last_cpu = (int32_t)line->field[PROCESSOR],
		.flags = (uint32_t)line->field[FLAGS],
		.state = line->state,
	};
	memcpy(row->comm, line->comm, sizeof(row->comm));
}

static void take_thread(struct pass *pass, int id, const struct stat_line *line)
{
	struct bal_survey *ret = pass->ret;
	struct bal_thread *row;

	if (ret->needed++ >= pass->capacity)
		return;
	row = (struct bal_thread *)pass->rows + ret->n_rows++;
	*row = (struct bal_thread){
		.tid = id,
		.start_ticks = line->field[STARTTIME],
		.cpu_ticks = line->field[UTIME] + line->field[STIME],
		.last_cpu = (int32_t)line->field[PROCESSOR],
		.state = line->state,
	};
}

/* A descriptor of our own: its position is at the start, and it may be read though proc_fd is O_PATH. */
static int read_directory(int proc_fd, const char *path, struct pass *pass)
{
	int rc, fd = openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	rc = read_all(fd, pass);
	close(fd);
	return rc;
}

int bal_survey(int proc_fd, uint64_t min_rss_pages, struct bal_process *rows, size_t capacity, struct bal_survey *ret)
{
	struct pass pass = {
		.take = take_process,
		.rows = rows,
		.capacity = capacity,
		.min_rss_pages = min_rss_pages,
		.ret = ret,
	};

	memset(ret, 0, sizeof(*ret));
	return read_directory(proc_fd, ".", &pass);
}

int bal_threads(int proc_fd, int pid, struct bal_thread *rows, size_t capacity, struct bal_survey *ret)
{
	struct pass pass = { .take = take_thread, .rows = rows, .capacity = capacity, .ret = ret };
	char path[32];
	int rc;

	memset(ret, 0, sizeof(*ret));
	snprintf(path, sizeof(path), "%d/task", pid);
	rc = read_directory(proc_fd, path, &pass);
	return rc == -ENOENT ? -ESRCH : rc;
}
