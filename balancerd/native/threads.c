// SPDX-License-Identifier: MIT
/*
 * What the threads of one process ran since they were last read, by node. What is remembered between passes lies in the
 * caller's seats; whose threads are read, and how many, is the caller's affair.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "procfs.h"

#define IDLE_READINGS 3
#define IDLE_SHARES 8
#define ROUNDED_TICKS 2 /* the threads of a process are rounded down each on its own */

/* One seat for each thread that is listed; the seats of those that ended are given up. */
static void merge(struct bal_thread_seat *seats, size_t n_seats, const struct bal_ids *ids)
{
	size_t kept = 0, at = 0, to = ids->n;

	for (size_t i = 0; i < n_seats; i++) {
		while (at < ids->n && ids->id[at] < seats[i].tid)
			at++;
		seats[i].in_pass = 0;
		if (at < ids->n && ids->id[at] == seats[i].tid)
			seats[kept++] = seats[i];
	}
	while (kept != to) {
		to--;
		if (kept && seats[kept - 1].tid == ids->id[to])
			seats[to] = seats[--kept];
		else
			seats[to] = (struct bal_thread_seat){ .tid = ids->id[to] };
	}
}

static uint64_t take(struct bal_thread_seat *seat, const struct bal_stat *line, const struct bal_thread_args *args,
		     uint64_t *run_ticks)
{
	uint64_t cpu = line->field[PROCESSOR], cpu_ticks = line->field[UTIME] + line->field[STIME], ran = 0;
	uint64_t start_ticks = line->field[STARTTIME];

	if (seat->is_read && seat->start_ticks == start_ticks) {
		ran = cpu_ticks > seat->cpu_ticks ? cpu_ticks - seat->cpu_ticks : 0;
		seat->idle = ran ? 0 : seat->idle + (seat->idle < IDLE_READINGS);
	} else {
		ran = start_ticks >= args->since_ticks ? cpu_ticks : 0;
		seat->idle = 0;
	}
	seat->start_ticks = start_ticks;
	seat->cpu_ticks = cpu_ticks;
	seat->is_read = 1;
	if (cpu < args->n_cpus && args->node_of_cpu[cpu] >= 0 && (uint32_t)args->node_of_cpu[cpu] < args->n_nodes)
		run_ticks[args->node_of_cpu[cpu]] += ran;
	return ran;
}

static int read_thread(int task_fd, int tid, struct bal_stat *ret)
{
	int rc, fd = bal_open_stat(task_fd, tid);

	if (fd < 0)
		return fd;
	rc = bal_read_stat(fd, ret);
	close(fd);
	return rc;
}

struct pass {
	int task_fd;
	const struct bal_thread_args *args;
	uint64_t *run_ticks;
	uint64_t found_ticks;
	struct bal_thread_survey *ret;
};

/* Read one share of the threads that ran lately, or of all that were not read in this pass yet. */
static void visit(struct bal_thread_seat *seats, uint64_t shares, int also_idle, struct pass *pass)
{
	for (size_t i = 0; i < pass->ret->n_seats; i++) {
		struct bal_thread_seat *seat = &seats[i];
		struct bal_stat line;
		int rc;

		if (seat->in_pass || (!also_idle && seat->idle == IDLE_READINGS))
			continue;
		if (shares > 1 && (uint64_t)seat->tid % shares != pass->args->turn % shares)
			continue;
		seat->in_pass = 1;
		rc = read_thread(pass->task_fd, seat->tid, &line);
		if (rc == -ENOENT || rc == -ESRCH) {
			pass->ret->vanished++;
		} else if (rc) {
			pass->ret->unreadable++;
		} else {
			pass->ret->read++;
			pass->found_ticks += take(seat, &line, pass->args, pass->run_ticks);
		}
	}
}

static void visit_all(struct bal_thread_seat *seats, struct pass *pass)
{
	uint64_t shares = pass->args->shares;

	visit(seats, shares, 0, pass);
	if (10 * (pass->found_ticks + ROUNDED_TICKS) >= 9 * pass->args->expected_ticks)
		shares *= IDLE_SHARES;
	visit(seats, shares, 1, pass);
}

int bal_threads(int proc_fd, int pid, const struct bal_thread_args *args, struct bal_thread_seat *seats, size_t n_seats,
		size_t capacity, uint64_t *run_ticks, struct bal_thread_survey *ret)
{
	struct pass pass = { .args = args, .run_ticks = run_ticks, .ret = ret };
	double began = bal_now_seconds();
	struct bal_ids ids;
	char path[32];
	int rc, fd;

	memset(ret, 0, sizeof(*ret));
	ret->n_seats = n_seats;
	snprintf(path, sizeof(path), "%d/task", pid);
	fd = bal_open_directory(proc_fd, path);
	if (fd < 0)
		return fd == -ENOENT ? -ESRCH : fd;
	pass.task_fd = fd;
	rc = bal_list_ids(fd, &ids);
	if (!rc) {
		ret->needed = ids.n;
		if (ids.n <= capacity) {
			merge(seats, n_seats, &ids);
			ret->n_seats = ids.n;
			visit_all(seats, &pass);
		}
	}
	free(ids.id);
	close(fd);
	ret->seconds = bal_now_seconds() - began;
	return rc == -ENOENT ? -ESRCH : rc;
}
