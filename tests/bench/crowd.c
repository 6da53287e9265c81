// SPDX-License-Identifier: MIT
/*
 * A machine full of processes, most of which sleep.
 *
 *   crowd PROCESSES THREADS LARGE BUSY MIB PERCENT
 *
 * PROCESSES are forked, with THREADS in all: those beyond one each go to the LARGE ones, evenly. LARGE of them hold MIB of
 * base pages. BUSY of the large ones have that memory to themselves, and their first threads use PERCENT of a core each,
 * reading it, a little every PERIOD and not all at once; the others share one copy, which counts in the resident size of
 * each. All others sleep for good. Prints "ready" and the pids of the busy ones once all of them and their threads are
 * there, and ends them all when standard input does. Should it be killed, they die with it.
 */
#include "../lab/workloads/program.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define STACK (64 << 10)
#define PERIOD_NS 100000000L
#define SECOND_NS 1000000000L

/* Names as they are met in /proc/PID/stat, where spaces and brackets have misled many a parser. */
static const char *const names[] = { "worker", "(sd-pam)", "tmux: server", "Web Content", "java", "a) S 1 (b" };
#define N_NAMES (sizeof(names) / sizeof(names[0]))

struct shape {
	long processes, threads, large, busy, mib, percent;
};

static long ns_of(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

static void *sleep_for_good(void *unused)
{
	(void)unused;
	for (;;)
		pause();
	return NULL;
}

static void start_threads(long n)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	if ((errno = pthread_attr_setstacksize(&attributes, STACK)))
		fail("pthread_attr_setstacksize");
	while (n-- > 0)
		if ((errno = pthread_create(&thread, &attributes, sleep_for_good, NULL)))
			fail("pthread_create");
}

static char *touched(size_t bytes)
{
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED || (madvise(memory, bytes, MADV_NOHUGEPAGE) && errno != EINVAL))
		fail("memory");
	for (size_t at = 0; at < bytes; at += PAGE)
		memory[at] = 1;
	return memory;
}

/* Its share of every period by its own CPU time, at times that do not move when the machine is busy. */
static void work(const char *memory, size_t bytes, long work_ns, long offset_ns)
{
	long next = ns_of(CLOCK_MONOTONIC) + offset_ns;
	uint64_t at = (uint64_t)offset_ns;

	for (;;) {
		struct timespec wake = { .tv_sec = next / SECOND_NS, .tv_nsec = next % SECOND_NS };
		long end;

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL);
		end = ns_of(CLOCK_THREAD_CPUTIME_ID) + work_ns;
		while (ns_of(CLOCK_THREAD_CPUTIME_ID) < end)
			for (int i = 0; i < 64; i++) {
				at = at * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
				(void)*(volatile const char *)(memory + (at >> 20) % bytes);
			}
		next += PERIOD_NS;
		if (next < ns_of(CLOCK_MONOTONIC)) /* what the machine had no time for is not made up for */
			next = ns_of(CLOCK_MONOTONIC);
	}
}

static void be(const struct shape *shape, long i, int is_large, pid_t parent, int ready)
{
	size_t bytes = (size_t)shape->mib << 20;
	char name[16];

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		exit(1);
	snprintf(name, sizeof(name), "%.10s %ld", names[(size_t)i % N_NAMES], i);
	prctl(PR_SET_NAME, name);
	if (is_large) {
		long more = shape->threads - shape->processes;

		start_threads(more / shape->large + (i < more % shape->large));
	}
	if (is_large && i < shape->busy) {
		const char *memory = touched(bytes);

		if (write(ready, "", 1) == 1 && !close(ready))
			work(memory, bytes, PERIOD_NS / 100 * shape->percent, PERIOD_NS / shape->busy * i);
	} else if (write(ready, "", 1) == 1 && !close(ready)) {
		sleep_for_good(NULL);
	}
	exit(1);
}

static pid_t start(const struct shape *shape, long i, int is_large, const int ready[2])
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		fail("fork");
	if (!pid) {
		close(ready[0]);
		be(shape, i, is_large, parent, ready[1]);
	}
	return pid;
}

static void end_all(const pid_t *pids, long n)
{
	for (long i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
	while (wait(NULL) > 0 || errno == EINTR)
		;
}

int main(int argc, char **argv)
{
	struct shape shape;
	long *const fields[] = { &shape.processes, &shape.threads, &shape.large, &shape.busy, &shape.mib, &shape.percent };
	enum { N_FIELDS = sizeof(fields) / sizeof(fields[0]) };
	long started = 0, up = 0;
	char buffer[4096];
	pid_t *pids;
	int ready[2];
	ssize_t n;

	if (argc != N_FIELDS + 1) {
		fprintf(stderr, "usage: crowd PROCESSES THREADS LARGE BUSY MIB PERCENT\n");
		return 2;
	}
	for (int i = 0; i < N_FIELDS; i++)
		*fields[i] = atol(argv[i + 1]);
	if (shape.busy > shape.large || shape.large > shape.processes || shape.threads < shape.processes ||
	    (shape.threads > shape.processes && !shape.large)) {
		fprintf(stderr, "crowd: not BUSY <= LARGE <= PROCESSES <= THREADS, or nobody for the threads\n");
		return 2;
	}
	pids = calloc((size_t)shape.processes, sizeof(*pids));
	if (!pids || pipe(ready))
		fail("no room");
	/* the busy ones and the light ones before there is memory to inherit */
	for (long i = 0; i < shape.busy; i++)
		pids[started++] = start(&shape, i, 1, ready);
	for (long i = shape.large; i < shape.processes; i++)
		pids[started++] = start(&shape, i, 0, ready);
	if (shape.large > shape.busy)
		touched((size_t)shape.mib << 20);
	for (long i = shape.busy; i < shape.large; i++)
		pids[started++] = start(&shape, i, 1, ready);
	close(ready[1]);
	while (up < started && (n = read(ready[0], buffer, sizeof(buffer))) > 0)
		up += n;
	if (up == started) {
		printf("ready");
		for (long i = 0; i < shape.busy; i++)
			printf(" %d", pids[i]);
		printf("\n");
		fflush(stdout);
		while (read(STDIN_FILENO, buffer, sizeof(buffer)) > 0)
			;
	} else {
		fprintf(stderr, "crowd: %ld of %ld processes came up\n", up, started);
	}
	end_all(pids, started);
	return up != started;
}
