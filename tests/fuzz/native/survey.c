// SPDX-License-Identifier: MIT
/*
 * Passes over a procfs whose processes come, go, and pass their pids on: bal_survey(), bal_threads(). What the daemon
 * knows by what it was told is what the seats say that it knows, and no descriptor is lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>

#include "fuzz.h"

#define PROCESSES 24
#define MOST_FDS 64
#define MOST_PASSES 24
#define FIRST_FD 100

enum what { CLOSED, LISTING, STAT };

struct process {
	uint32_t life; /* which of those that had this pid; 0: none now */
	uint8_t text;  /* 0: a stat line; else the length of what stands in its place */
	uint8_t fails;
	uint64_t rss, ticks, start, flags, threads, cpu;
	char comm[8];
};

struct descriptor {
	enum what what;
	int process;
	uint32_t life;
	int listed;
};

static struct process processes[PROCESSES];
static struct descriptor fds[MOST_FDS];
static struct input *noise;
static uint32_t lives;
static int n_open, most_open;

static int open_one(enum what what, int process)
{
	for (int i = 0; i < MOST_FDS && n_open < most_open; i++) {
		if (fds[i].what != CLOSED)
			continue;
		fds[i] = (struct descriptor){ .what = what, .process = process,
					      .life = process < 0 ? 0 : processes[process].life };
		n_open++;
		return FIRST_FD + i;
	}
	errno = EMFILE;
	return -1;
}

/* A pid is the number of its process times 3, and 1. */
int answer_openat(int directory, const char *path, int flags, ...)
{
	int pid = atoi(path), process = (pid - 1) / 3;
	const char *slash = strchr(path, '/');

	MUST(flags & O_CLOEXEC);
	if (!strcmp(path, "."))
		return open_one(LISTING, -1);
	MUST(slash && process >= 0 && process < PROCESSES && pid == 3 * process + 1 && directory >= 0);
	if (!processes[process].life) {
		errno = ENOENT;
		return -1;
	}
	return open_one(strcmp(slash, "/task") ? STAT : LISTING, process);
}

int answer_close(int fd)
{
	MUST(fd >= FIRST_FD && fd < FIRST_FD + MOST_FDS && fds[fd - FIRST_FD].what != CLOSED);
	fds[fd - FIRST_FD].what = CLOSED;
	n_open--;
	return 0;
}

ssize_t answer_pread(int fd, void *to, size_t n, off_t at)
{
	const struct descriptor *d = &fds[fd - FIRST_FD];
	const struct process *p = &processes[d->process];
	char line[512];
	size_t length;

	MUST(d->what == STAT && at == 0);
	if (p->life != d->life || p->fails % 16 == 1) {
		errno = p->life != d->life ? ESRCH : EIO;
		return -1;
	}
	if (p->text) {
		eat(noise, line, p->text);
		length = p->text;
	} else {
		length = (size_t)snprintf(line, sizeof(line),
					  "%d (%s) S 1 1 1 0 -1 %llu 0 0 0 0 %llu 0 0 0 20 0 %llu 0 %llu 0 %llu 0 0 0 0 0 0 0 0 0 0 "
					  "0 0 0 0 17 %llu 0 0 0\n",
					  3 * d->process + 1, p->comm, (unsigned long long)p->flags,
					  (unsigned long long)p->ticks, (unsigned long long)p->threads,
					  (unsigned long long)p->start, (unsigned long long)p->rss,
					  (unsigned long long)p->cpu);
	}
	memcpy(to, line, length < n ? length : n);
	return (ssize_t)(length < n ? length : n);
}

/* One entry of getdents64(2): some come twice, as processes that start while procfs is read may. */
static long list_one(struct descriptor *d, char *to)
{
	static const char *const others[] = { "self", "1x", "0", "99999999999", "" };
	char name[16];
	unsigned short length;
	int at = d->listed++;

	if (at >= 2 * PROCESSES)
		return 0;
	if (at % 2 && !processes[at / 2].life)
		snprintf(name, sizeof(name), "%s", others[at / 2 % 5]);
	else if (!processes[at / 2].life || (at % 2 && processes[at / 2].fails < 128))
		return list_one(d, to);
	else
		snprintf(name, sizeof(name), "%d", 3 * (at / 2) + 1);
	length = (unsigned short)((19 + strlen(name) + 8) / 8 * 8);
	memset(to, 0, length);
	memcpy(to + 16, &length, sizeof(length));
	memcpy(to + 19, name, strlen(name));
	return length;
}

long answer_syscall(long number, ...)
{
	struct descriptor *d;
	va_list given;
	char *to;
	long got;

	MUST(number == SYS_getdents64);
	va_start(given, number);
	d = &fds[va_arg(given, int) - FIRST_FD];
	to = va_arg(given, char *);
	MUST(va_arg(given, unsigned long) >= 64 && d->what == LISTING);
	va_end(given);
	got = list_one(d, to);
	return got ? got + list_one(d, to + got) : 0;
}

static void change(struct input *in)
{
	struct process *p = &processes[eat_byte(in) % PROCESSES];
	uint8_t how = eat_byte(in);

	if (how < 128)
		*p = (struct process){ .life = ++lives, .start = eat_number(in), .fails = eat_byte(in), .comm = "a" };
	if (how >= 240)
		p->life = 0;
	p->text = how >= 224 && how < 240 ? eat_byte(in) : 0;
	p->rss = eat_number(in);
	p->ticks += eat_number(in);
	p->threads = eat_byte(in);
	p->cpu = eat_byte(in);
	p->flags = how % 16 == 0 ? 0x00200000 : 0;
	p->comm[0] = (char)('a' + how % 3);
}

struct survey {
	struct bal_seat seats[PROCESSES];
	uint64_t n_seats;
	uint8_t is_known[PROCESSES]; /* by what the passes told */
	double now_seconds;
};

static void check_seats(const struct survey *s, const struct bal_survey *told)
{
	int kept = 0;

	for (uint64_t i = 0; i < s->n_seats; i++) {
		const struct bal_seat *seat = &s->seats[i];

		MUST(i == 0 || s->seats[i - 1].pid < seat->pid);
		MUST(!seat->is_told == !s->is_known[seat->pid / 3]);
		MUST(!seat->is_told || seat->readings > 0);
		MUST(!seat->comm[BAL_COMM]);
		kept += seat->fd >= 0;
		MUST(seat->fd < 0 || (fds[seat->fd - FIRST_FD].what == STAT && fds[seat->fd - FIRST_FD].process == seat->pid / 3));
	}
	MUST((uint64_t)kept == told->kept && kept == n_open);
}

static void pass(struct input *in, struct survey *s, size_t capacity)
{
	uint8_t shape = eat_byte(in);
	struct bal_survey_args args = {
		.now_seconds = s->now_seconds += eat_byte(in) / 4.0,
		.boot_ticks = (uint64_t)(s->now_seconds * 100),
		.ticks_per_second = 100,
		.min_rss_pages = eat_byte(in),
		.min_cpu_cores = eat_byte(in) / 100.0,
		.idle_seconds = shape & 15,
		.small_seconds = shape >> 2 & 15,
		.kernel_seconds = shape >> 4,
		.max_kept = eat_byte(in) % PROCESSES,
		.busy_is_large = shape & 1,
		.no_listing = (shape & 6) == 6,
	};
	uint32_t *told = exactly(capacity * sizeof(*told));
	int32_t *dropped = exactly(capacity * sizeof(*dropped)), pids[PROCESSES];
	uint8_t is_listed[PROCESSES] = { 0 };
	struct bal_survey ret;
	uint64_t named;
	int rc;

	most_open = eat_byte(in) % MOST_FDS;
	rc = bal_survey(100, &args, s->seats, s->n_seats, capacity, told, dropped, &ret);
	MUST(rc == 0 || (rc == -EMFILE && n_open >= most_open));
	MUST(ret.n_told <= capacity && ret.n_dropped <= capacity && ret.n_seats <= capacity);
	s->n_seats = ret.n_seats;
	for (uint64_t i = 0; i < ret.n_dropped; i++) {
		MUST(s->is_known[dropped[i] / 3]);
		s->is_known[dropped[i] / 3] = 0;
	}
	for (uint64_t i = 0; i < ret.n_told; i++) {
		MUST(told[i] < s->n_seats);
		s->is_known[s->seats[told[i]].pid / 3] = 1;
	}
	for (uint64_t i = 0; i < s->n_seats; i++)
		is_listed[s->seats[i].pid / 3] = 1;
	for (int i = 0; i < PROCESSES; i++)
		MUST(is_listed[i] || !s->is_known[i]);
	check_seats(s, &ret);
	if (rc == 0 && ret.needed <= capacity)
		MUST(ret.processes <= ret.n_seats && ret.kernel_threads <= ret.processes);
	MUST(bal_named_seats(s->seats, s->n_seats, "a", pids, 3, &named) == 0 && named <= s->n_seats);
	free(told);
	free(dropped);
}

struct threads {
	struct bal_thread_seat seats[PROCESSES];
	uint64_t n_seats;
};

static void pass_threads(struct input *in, struct threads *t)
{
	static const int32_t node_of_cpu[] = { 0, 1, -1, 2, 3, 99 };
	struct bal_thread_args args = { .since_ticks = eat_number(in), .expected_ticks = eat_number(in), .shares = eat_byte(in) % 4,
					.turn = eat_byte(in), .node_of_cpu = node_of_cpu, .n_cpus = 6, .n_nodes = 4 };
	uint64_t run_ticks[4] = { 0 };
	struct bal_thread_survey ret;
	int rc, before = n_open, pid = 3 * (eat_byte(in) % PROCESSES) + 1;

	most_open = eat_byte(in) % MOST_FDS;
	rc = bal_threads(100, pid, &args, t->seats, t->n_seats, PROCESSES, run_ticks, &ret);
	MUST(rc == 0 || rc == -ESRCH || rc == -EMFILE);
	MUST(n_open == before && ret.n_seats <= PROCESSES);
	t->n_seats = ret.n_seats;
	for (uint64_t i = 1; i < t->n_seats; i++)
		MUST(t->seats[i - 1].tid < t->seats[i].tid);
	MUST(ret.read + ret.vanished + ret.unreadable <= ret.n_seats);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	size_t capacity = eat_byte(&in) % 4 ? PROCESSES : 5;
	struct survey survey = { .now_seconds = 1 };
	struct threads threads = { .n_seats = 0 };

	memset(processes, 0, sizeof(processes));
	memset(fds, 0, sizeof(fds));
	noise = &in;
	n_open = 0;
	lives = 0;
	for (int i = 0; i < MOST_PASSES && in.n; i++) {
		for (int changes = eat_byte(&in) % 16; changes > 0; changes--)
			change(&in);
		if (eat_byte(&in) % 8 == 7)
			pass_threads(&in, &threads);
		else
			pass(&in, &survey, capacity);
	}
	MUST(bal_close_seats(survey.seats, survey.n_seats) == 0 && n_open == 0);
	return 0;
}
