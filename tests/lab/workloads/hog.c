// SPDX-License-Identifier: MIT
/*
 * A process with known memory on a known node, spinning on a known CPU.
 *
 *   hog KIND MIB TOUCH_CPU SPIN_CPU BUSY_PERCENT [PATH]
 *
 * KIND is base, thp, hugetlb, file (PATH is created), shared (with a child, half of the memory) or mlock. The memory
 * is touched on TOUCH_CPU, which places it by first touch and leaves no mempolicy behind; then the process moves to
 * SPIN_CPU, prints "ready" and spins, reading its memory now and then. SIGTERM ends it: it checks every word, prints
 * "verified N pages" and exits 0, or prints the first wrong address and exits 1. SIGUSR1 has it check and go on. At
 * SIGUSR2 it waits, in state D, until the child is gone that it makes by vfork(2).
 *
 * Each millisecond it naps for what BUSY_PERCENT leaves, 95 at most: an emulator that runs all virtual CPUs in one
 * thread gives a CPU that never idles 100 ms at a time, and whoever waits for an interrupt on it, as migration does,
 * waits as long.
 */
#include "program.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define HUGE (2ul << 20)

static volatile sig_atomic_t stop, check, block;

static void on_signal(int signal)
{
	if (signal == SIGUSR1)
		check = 1;
	else if (signal == SIGUSR2)
		block = 1;
	else
		stop = 1;
}

static void *map(const char *kind, size_t bytes, const char *path)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS, fd = -1;
	char *memory;

	if (!strcmp(kind, "hugetlb")) {
		flags |= MAP_HUGETLB;
	} else if (!strcmp(kind, "file")) {
		flags = MAP_SHARED;
		fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (fd < 0 || ftruncate(fd, (off_t)bytes))
			fail(path);
	}
	/* room to start at a huge page's boundary */
	memory = mmap(NULL, bytes + (flags & MAP_ANONYMOUS ? HUGE : 0), PROT_READ | PROT_WRITE, flags, fd, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	if (flags & MAP_ANONYMOUS && !(flags & MAP_HUGETLB))
		memory = (char *)(((uintptr_t)memory + HUGE - 1) & ~(HUGE - 1));
	if (!strcmp(kind, "thp") ? madvise(memory, bytes, MADV_HUGEPAGE) :
	    flags & MAP_ANONYMOUS && !(flags & MAP_HUGETLB) ? madvise(memory, bytes, MADV_NOHUGEPAGE) : 0)
		fail("madvise");
	return memory;
}

static uint64_t expected(size_t i)
{
	return (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
}

static void verify(const uint64_t *memory, size_t words)
{
	for (size_t i = 0; i < words; i++) {
		if (memory[i] != expected(i)) {
			printf("corrupt at %p\n", (void *)&memory[i]);
			exit(1);
		}
	}
	printf("verified %zu pages\n", words * sizeof(*memory) / PAGE);
	fflush(stdout);
}

static void wait_blocked(void)
{
	if (vfork() == 0)
		for (;;)
			pause();
	wait(NULL);
}

int main(int argc, char **argv)
{
	size_t bytes, words, at = 0;
	uint64_t *memory;
	volatile uint64_t sum = 0;
	pid_t child = 0;
	struct sigaction act = { .sa_handler = on_signal };
	struct timespec nap = { 0 };
	double busy;

	if (argc < 6 || (!strcmp(argv[1], "file") && argc < 7) || atoi(argv[5]) < 1 || atoi(argv[5]) > 95) {
		fprintf(stderr, "usage: hog KIND MIB TOUCH_CPU SPIN_CPU BUSY_PERCENT [PATH]\n");
		return 2;
	}
	busy = atoi(argv[5]) / 100.0;
	nap.tv_nsec = (long)((1 - busy) * 1e6);
	bytes = strtoul(argv[2], NULL, 10) << 20;
	words = bytes / sizeof(*memory);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGUSR1, &act, NULL);
	sigaction(SIGUSR2, &act, NULL);
	run_on(atoi(argv[3]));
	memory = map(argv[1], bytes, argc > 6 ? argv[6] : NULL);
	for (size_t i = 0; i < words; i++)
		memory[i] = expected(i);
	if (!strcmp(argv[1], "mlock") && mlock(memory, bytes))
		fail("mlock");
	if (!strcmp(argv[1], "shared")) {
		/* after fork all pages are shared; writing makes the upper half private again, on this node */
		child = fork();
		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
		for (size_t i = words / 2; i < words; i += PAGE / sizeof(*memory))
			memory[i] = expected(i);
	}
	run_on(atoi(argv[4]));
	printf("ready\n");
	fflush(stdout);
	while (!stop) {
		double busy_until = now() + busy * 1e-3;

		while (now() < busy_until) {
			for (int i = 0; i < 1000; i++)
				sum += (uint64_t)i * sum + 1;
			sum += memory[at];
			at = (at + 8 * PAGE / sizeof(*memory) + 1) % words;
		}
		nanosleep(&nap, NULL);
		if (check) {
			check = 0;
			verify(memory, words);
		}
		if (block) {
			block = 0;
			wait_blocked();
		}
	}
	verify(memory, words);
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	return 0;
}
