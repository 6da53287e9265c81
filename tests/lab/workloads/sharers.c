// SPDX-License-Identifier: MIT
/*
 * Processes that share memory: the first touches it on one CPU, and forks one for each further CPU, which reads it there.
 *
 *   sharers KIND MIB TOUCH_CPU CPU...
 *
 * KIND is anonymous, memfd or named (a file of /dev/shm, gone at once). "ready PID..." names the readers; they are busy for
 * a third of their time. On SIGTERM they end, and every word is checked: "verified N pages", and the status is 0.
 */
#include "program.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define MOST 16

static int file_of(const char *kind, size_t bytes)
{
	char name[32];
	int fd;

	if (!strcmp(kind, "anonymous"))
		return -1;
	snprintf(name, sizeof(name), "/sharers.%d", getpid());
	fd = strcmp(kind, "memfd") ? shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600) : memfd_create(name + 1, 0);
	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		fail(kind);
	if (strcmp(kind, "memfd"))
		shm_unlink(name);
	return fd;
}

static _Noreturn void read_all(const volatile uint64_t *words, size_t n, int cpu)
{
	struct timespec nap = { .tv_nsec = 2000000 };
	uint64_t dice = 88172645463325252ul;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	run_on(cpu);
	for (;;) {
		double until = now() + 1e-3;

		while (now() < until) {
			dice ^= dice << 13;
			dice ^= dice >> 7;
			dice ^= dice << 17;
			if (words[dice % n] != dice % n)
				_exit(1);
		}
		nanosleep(&nap, NULL);
	}
}

int main(int argc, char **argv)
{
	pid_t readers[MOST];
	int fd, signal, status, n_readers = argc - 4;
	uint64_t *words;
	sigset_t set;
	size_t n;

	if (argc < 5 || n_readers > MOST || atoi(argv[2]) < 1) {
		fprintf(stderr, "usage: sharers anonymous|memfd|named MIB TOUCH_CPU CPU...\n");
		return 2;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	n = ((size_t)atoi(argv[2]) << 20) / sizeof(*words);
	run_on(atoi(argv[3]));
	fd = file_of(argv[1], n * sizeof(*words));
	words = mmap(NULL, n * sizeof(*words), PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	if (words == MAP_FAILED)
		fail("mmap");
	for (size_t i = 0; i < n; i++)
		words[i] = i;
	for (int i = 0; i < n_readers; i++) {
		readers[i] = fork();
		if (readers[i] < 0)
			fail("fork");
		if (!readers[i])
			read_all(words, n, atoi(argv[4 + i]));
	}
	printf("ready");
	for (int i = 0; i < n_readers; i++)
		printf(" %d", readers[i]);
	printf("\n");
	fflush(stdout);
	sigwait(&set, &signal);
	for (int i = 0; i < n_readers; i++) {
		kill(readers[i], SIGKILL);
		if (waitpid(readers[i], &status, 0) < 0 || !WIFSIGNALED(status)) {
			printf("a reader found a wrong word\n");
			return 1;
		}
	}
	for (size_t i = 0; i < n; i++) {
		if (words[i] != i) {
			printf("word %zu is %lu\n", i, words[i]);
			return 1;
		}
	}
	printf("verified %zu pages\n", n * sizeof(*words) / PAGE);
	return 0;
}
