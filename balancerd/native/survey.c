// SPDX-License-Identifier: MIT
/*
 * One pass over all processes: list them, read those that are due, say who changed. What is remembered between passes
 * lies in the caller's seats. Which sizes and periods matter is the caller's affair, too.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "procfs.h"

#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */

/* How far a quiet process may be from what was told of it. */
#define RSS_SHARE 64
#define CORES 0.01
#define FAULTS_PER_SECOND 10.0
#define FAULTS_RATIO 0.25

struct pass {
	int proc_fd;
	const struct bal_survey_args *args;
	uint32_t *told;
	int32_t *dropped;
	struct bal_survey *ret;
};

static int is_busy(const struct bal_seat *seat, const struct bal_survey_args *args)
{
	return seat->readings > 1 && seat->cpu_cores >= args->min_cpu_cores;
}

static int is_large(const struct bal_seat *seat, const struct bal_survey_args *args)
{
	if (!seat->readings || seat->flags & PF_KTHREAD)
		return 0;
	return seat->rss_pages >= args->min_rss_pages || (args->busy_is_large && is_busy(seat, args));
}

/*
 * Whether a turn of this process came since it was last read. Each has its own phase of the period: Fibonacci hashing,
 * which spreads successive pids evenly.
 */
static int had_turn(const struct bal_seat *seat, double period_seconds, double now_seconds)
{
	double phase = (double)((uint32_t)seat->pid * UINT32_C(2654435769)) / 4294967296.0;

	if (period_seconds <= 0)
		return 1;
	return (int64_t)(now_seconds / period_seconds + phase) != (int64_t)(seat->read_at / period_seconds + phase);
}

/* One that has just started may be about to grow. */
static int is_young(const struct bal_seat *seat, const struct bal_survey_args *args)
{
	return seat->read_ticks < seat->start_ticks + (uint64_t)(args->small_seconds * args->ticks_per_second);
}

static int is_due(const struct bal_seat *seat, const struct bal_survey_args *args)
{
	double now = args->now_seconds;

	if (seat->read_at < 0)
		return 1;
	if (now <= seat->read_at)
		return 0;
	if (!seat->readings)
		return had_turn(seat, args->small_seconds, now);
	if (seat->flags & PF_KTHREAD)
		return had_turn(seat, args->kernel_seconds, now);
	if (seat->rss_pages < args->min_rss_pages && !args->busy_is_large && !is_young(seat, args))
		return had_turn(seat, args->small_seconds, now);
	return seat->readings < 2 || is_busy(seat, args) || had_turn(seat, args->idle_seconds, now);
}

static void drop_fd(struct bal_seat *seat, struct pass *pass)
{
	if (seat->fd < 0)
		return;
	close(seat->fd);
	seat->fd = -1;
	pass->ret->kept--;
}

static void drop(struct bal_seat *seat, struct pass *pass)
{
	if (seat->is_told)
		pass->dropped[pass->ret->n_dropped++] = seat->pid;
	seat->is_told = 0;
}

/* A kept descriptor belongs to one process for ever: ESRCH says that it is gone, but its pid may have a new owner. */
static int read_line(struct bal_seat *seat, struct pass *pass, struct bal_stat *ret)
{
	int fd;

	if (seat->fd >= 0) {
		int rc = bal_read_stat(seat->fd, ret);

		if (rc != -ESRCH)
			return rc;
		drop_fd(seat, pass);
		drop(seat, pass);
		seat->readings = 0;
	}
	fd = bal_open_stat(pass->proc_fd, seat->pid);
	if (fd < 0)
		return fd;
	seat->fd = fd;
	pass->ret->kept++;
	return bal_read_stat(fd, ret);
}

static void take(struct bal_seat *seat, const struct bal_stat *line, struct pass *pass)
{
	const struct bal_survey_args *args = pass->args;
	uint64_t cpu_ticks = line->field[UTIME] + line->field[STIME];
	uint64_t faults = line->field[MINFLT] + line->field[MAJFLT];
	int32_t n_threads = (int32_t)line->field[NUM_THREADS];

	if (seat->readings && seat->start_ticks != line->field[STARTTIME]) {
		drop(seat, pass);
		seat->readings = 0;
	}
	if (seat->readings) {
		double elapsed = args->now_seconds - seat->read_at;

		seat->run_ticks = cpu_ticks > seat->cpu_ticks ? cpu_ticks - seat->cpu_ticks : 0;
		seat->cpu_cores = (double)seat->run_ticks / args->ticks_per_second / elapsed;
		seat->faults_per_second = faults > seat->faults ? (double)(faults - seat->faults) / elapsed : 0;
		seat->before_ticks = seat->read_ticks;
		seat->changed |= seat->readings == 1 || seat->n_threads != n_threads || strcmp(seat->comm, line->comm);
	}
	seat->readings += seat->readings < 2;
	seat->start_ticks = line->field[STARTTIME];
	seat->cpu_ticks = cpu_ticks;
	seat->faults = faults;
	seat->rss_pages = line->field[RSS];
	seat->read_ticks = args->boot_ticks;
	seat->read_at = args->now_seconds;
	seat->n_threads = n_threads;
	seat->last_cpu = (int32_t)line->field[PROCESSOR];
	seat->flags = (uint32_t)line->field[FLAGS];
	memcpy(seat->comm, line->comm, sizeof(seat->comm));
	pass->ret->read++;
}

/* Loud processes may have all descriptors, the other large ones half of them. */
static void keep_or_close(struct bal_seat *seat, struct pass *pass)
{
	uint64_t most = seat->is_loud ? pass->args->max_kept : pass->args->max_kept / 2;

	if (!is_large(seat, pass->args) || seat->readings < 2 || pass->ret->kept > most)
		drop_fd(seat, pass);
}

/* 0, or -ESRCH when there is no such process any more. */
static int read_seat(struct bal_seat *seat, struct pass *pass)
{
	struct bal_stat line;
	int rc = read_line(seat, pass, &line);

	if (rc == -ENOENT || rc == -ESRCH) {
		pass->ret->vanished++;
		return -ESRCH;
	}
	if (!rc) {
		take(seat, &line, pass);
	} else {
		drop_fd(seat, pass);
		if (!seat->readings)
			seat->read_at = pass->args->now_seconds; /* one that was understood before is due again at once */
		else
			pass->ret->unreadable++;
	}
	return 0;
}

static uint64_t age_ticks(const struct bal_seat *seat, const struct bal_survey_args *args)
{
	return args->boot_ticks > seat->start_ticks ? args->boot_ticks - seat->start_ticks : 0;
}

static int differs(const struct bal_seat *seat, const struct bal_survey_args *args)
{
	uint64_t rss = seat->rss_pages, told = seat->told_rss_pages;
	double faults = fabs(seat->faults_per_second - seat->told_faults_per_second);

	return seat->changed || seat->is_loud || seat->told_loud ||
	       (rss > told ? rss - told : told - rss) > told / RSS_SHARE ||
	       fabs(seat->cpu_cores - seat->told_cores) >= CORES ||
	       faults > FAULTS_PER_SECOND + FAULTS_RATIO * seat->told_faults_per_second ||
	       age_ticks(seat, args) >= 2 * seat->told_age_ticks + (uint64_t)args->ticks_per_second;
}

static void tell(struct bal_seat *seat, size_t at, struct pass *pass)
{
	const struct bal_survey_args *args = pass->args;

	if (!is_large(seat, args)) {
		drop(seat, pass);
		return;
	}
	if (seat->is_told && !differs(seat, args))
		return;
	seat->is_told = 1;
	seat->changed = 0;
	seat->told_loud = seat->is_loud;
	seat->told_rss_pages = seat->rss_pages;
	seat->told_cores = seat->cpu_cores;
	seat->told_faults_per_second = seat->faults_per_second;
	seat->told_age_ticks = age_ticks(seat, args);
	pass->told[pass->ret->n_told++] = (uint32_t)at;
}

/* One seat for each process that is listed: those of others are given up, and new ones are made. */
static void merge(struct bal_seat *seats, size_t n_seats, const struct bal_ids *ids, struct pass *pass)
{
	size_t kept = 0, at = 0, to = ids->n;

	for (size_t i = 0; i < n_seats; i++) {
		while (at < ids->n && ids->id[at] < seats[i].pid)
			at++;
		if (at == ids->n || ids->id[at] != seats[i].pid) {
			drop_fd(&seats[i], pass);
			drop(&seats[i], pass);
		} else {
			if (kept != i)
				seats[kept] = seats[i];
			kept++;
		}
	}
	while (kept != to) {
		to--;
		if (kept && seats[kept - 1].pid == ids->id[to])
			seats[to] = seats[--kept];
		else
			seats[to] = (struct bal_seat){ .pid = ids->id[to], .fd = -1, .read_at = -1 };
	}
	pass->ret->n_seats = ids->n;
}

static int list_and_merge(struct bal_seat *seats, size_t n_seats, size_t capacity, struct pass *pass)
{
	int rc, fd = bal_open_directory(pass->proc_fd, ".");
	struct bal_ids ids;

	if (fd < 0)
		return fd;
	rc = bal_list_ids(fd, &ids);
	close(fd);
	if (!rc) {
		pass->ret->needed = ids.n;
		if (ids.n <= capacity)
			merge(seats, n_seats, &ids, pass);
	}
	free(ids.id);
	return rc;
}

static void visit(struct bal_seat *seats, struct pass *pass)
{
	struct bal_survey *ret = pass->ret;
	size_t n = 0;

	for (size_t i = 0; i < ret->n_seats; i++) {
		struct bal_seat *seat = &seats[n];

		if (n != i)
			*seat = seats[i];
		if (is_due(seat, pass->args) && read_seat(seat, pass)) {
			drop(seat, pass);
			continue;
		}
		seat->is_loud = is_large(seat, pass->args) && is_busy(seat, pass->args);
		keep_or_close(seat, pass);
		tell(seat, n, pass);
		ret->processes += seat->readings > 0;
		ret->unreadable += !seat->readings;
		ret->kernel_threads += seat->readings && seat->flags & PF_KTHREAD;
		n++;
	}
	ret->n_seats = n;
}

int bal_survey(int proc_fd, const struct bal_survey_args *args, struct bal_seat *seats, size_t n_seats, size_t capacity,
	       uint32_t *told, int32_t *dropped, struct bal_survey *ret)
{
	struct pass pass = { .proc_fd = proc_fd, .args = args, .told = told, .dropped = dropped, .ret = ret };
	double began = bal_now_seconds();
	int rc;

	memset(ret, 0, sizeof(*ret));
	ret->n_seats = n_seats;
	for (size_t i = 0; i < n_seats; i++)
		ret->kept += seats[i].fd >= 0;
	rc = args->no_listing ? 0 : list_and_merge(seats, n_seats, capacity, &pass);
	if (!rc && ret->needed <= capacity)
		visit(seats, &pass);
	ret->seconds = bal_now_seconds() - began;
	return rc;
}

int bal_close_seats(struct bal_seat *seats, size_t n_seats)
{
	for (size_t i = 0; i < n_seats; i++) {
		if (seats[i].fd >= 0)
			close(seats[i].fd);
		seats[i].fd = -1;
	}
	return 0;
}

int bal_named_seats(const struct bal_seat *seats, size_t n_seats, const char *beginning, int32_t *pids, size_t capacity,
		    uint64_t *ret)
{
	size_t length = strlen(beginning);

	*ret = 0;
	for (size_t i = 0; i < n_seats; i++) {
		if (strncmp(seats[i].comm, beginning, length))
			continue;
		if (*ret < capacity)
			pids[*ret] = seats[i].pid;
		++*ret;
	}
	return 0;
}
