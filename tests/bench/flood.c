// SPDX-License-Identifier: MIT
/*
 * What a machine may throw at whoever watches it.
 *
 *   flood maps N        a process with N mappings of a page each, that reads them until its input ends
 *   flood storm N RATE  N children that exit at once, RATE a second; then it ends
 *
 * Prints "ready" once there is something to see.
 */
#include "../lab/workloads/program.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define BURSTS 20 /* a second */

static int input_ended(void)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };

	return poll(&input, 1, 0) > 0;
}

static void keep_maps(long n)
{
	char *memory = mmap(NULL, (size_t)n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned int sum = 0;

	if (memory == MAP_FAILED || madvise(memory, (size_t)n * PAGE, MADV_NOHUGEPAGE))
		fail("memory");
	for (long i = 0; i < n; i++)
		memory[i * PAGE] = 1;
	for (long i = 0; i < n; i += 2) /* neighbours with other rights are mappings of their own */
		if (mprotect(memory + i * PAGE, PAGE, PROT_READ))
			fail("mprotect");
	puts("ready");
	fflush(stdout);
	while (!input_ended())
		for (long i = 0; i < n; i++)
			sum += *(volatile char *)(memory + i * PAGE);
	exit(sum == 0);
}

static void storm(long n, long rate)
{
	double began = now();

	puts("ready");
	fflush(stdout);
	for (long i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (!pid)
			_exit(0);
		if (i % (rate / BURSTS + 1) == 0) {
			double ahead = (double)i / (double)rate - (now() - began);

			while (waitpid(-1, NULL, WNOHANG) > 0)
				;
			if (ahead > 0.0)
				usleep((useconds_t)(ahead * 1e6));
		}
	}
	while (wait(NULL) > 0)
		;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "maps") && atol(argv[2]) > 0) {
		keep_maps(atol(argv[2]));
	} else if (argc == 4 && !strcmp(argv[1], "storm") && atol(argv[2]) > 0 && atol(argv[3]) > 0) {
		storm(atol(argv[2]), atol(argv[3]));
		return 0;
	}
	fprintf(stderr, "usage: flood maps N | flood storm N RATE\n");
	return 2;
}
