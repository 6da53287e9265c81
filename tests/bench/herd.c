// SPDX-License-Identifier: MIT
/*
 * herd SMALL LARGE BUSY THREADS: so many light processes of each kind, until standard input ends. Small ones sleep;
 * large ones hold 4 MiB and sleep; busy ones hold 4 MiB, have THREADS threads, and use about 2 % of a core.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define LARGE_BYTES (4 << 20)

static void *sleep_on(void *unused)
{
	(void)unused;
	for (;;)
		pause();
	return NULL;
}

static void work(void)
{
	struct timespec now, end, rest = { .tv_nsec = 98000000 };

	for (;;) {
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
		do
			clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
		while ((now.tv_sec - end.tv_sec) * 1000000000L + now.tv_nsec - end.tv_nsec < 2000000);
		nanosleep(&rest, NULL);
	}
}

static void live(int large, int threads)
{
	pthread_attr_t attributes;
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (large)
		memset(malloc(LARGE_BYTES), 1, LARGE_BYTES);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 65536);
	for (int i = 1; i < threads; i++)
		if (pthread_create(&thread, &attributes, sleep_on, NULL))
			_exit(1);
	if (threads)
		work();
	sleep_on(NULL);
}

int main(int count, char **values)
{
	int small = count == 5 ? atoi(values[1]) : -1, large, busy;

	if (small < 0)
		return 2;
	large = atoi(values[2]);
	busy = atoi(values[3]);
	for (int i = 0; i < small + large + busy; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (pid == 0)
			live(i >= small, i >= small + large ? atoi(values[4]) : 0);
	}
	puts("ready");
	fflush(stdout);
	getchar();
	return 0;
}
