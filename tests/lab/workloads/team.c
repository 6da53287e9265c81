// SPDX-License-Identifier: MIT
/*
 * A process whose threads each have a part of its memory to themselves, all of it first touched by the main thread.
 *
 *   team KIND MIB THREADS BUSY_PERCENT [shared|calm]
 *
 * KIND is base or thp. One mapping holds the parts of MIB each, one behind the other. The main thread fills all of it on
 * CPU 0, which places it by first touch; then thread I runs on CPU I and reads its part, page by page in an order of
 * chance. With "calm" it works and naps in turns of 50 ms instead of 1 ms, since emulated waking up is dear; with "shared"
 * too, and every thread reads all parts. "ready ADDRESS" tells where the first part begins. SIGTERM ends it: it checks every word, prints "verified
 * N pages" and exits 0, or prints the first wrong address and exits 1. Naps are those of hog.c, and for the same reason.
 */
#include "program.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define HUGE (2ul << 20)
#define LINE_WORDS 8
#define PAGE_WORDS (PAGE / sizeof(uint64_t))
#define MOST_THREADS 64

static atomic_bool stop;
static uint64_t *memory;
static size_t part_words, n_words;
static bool shared;
static double busy, period = 1e-3;

static uint64_t expected(size_t i)
{
	return (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
}

static void *work(void *argument)
{
	size_t index = (size_t)argument, n_pages = (shared ? n_words : part_words) / PAGE_WORDS;
	const volatile uint64_t *part = memory + (shared ? 0 : index * part_words);
	struct timespec nap = { .tv_nsec = (long)((1 - busy) * period * 1e9) };
	uint64_t dice = 88172645463325252ul + index, sum = 0;

	run_on((int)index);
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		double busy_until = now() + busy * period;

		while (now() < busy_until) {
			const volatile uint64_t *page;

			dice ^= dice << 13;
			dice ^= dice >> 7;
			dice ^= dice << 17;
			page = part + dice % n_pages * PAGE_WORDS;
			for (size_t i = 0; i < PAGE_WORDS; i += LINE_WORDS)
				sum += page[i];
		}
		nanosleep(&nap, NULL);
	}
	return (void *)(uintptr_t)sum;
}

int main(int argc, char **argv)
{
	size_t n_threads = argc == 5 || argc == 6 ? strtoul(argv[3], NULL, 10) : 0, bytes;
	pthread_t threads[MOST_THREADS];
	sigset_t term;
	char *mapped;
	int number;

	if (n_threads < 1 || n_threads > MOST_THREADS || atoi(argv[2]) < 1 || atoi(argv[4]) < 1 || atoi(argv[4]) > 95 ||
	    (argc == 6 && strcmp(argv[5], "shared") && strcmp(argv[5], "calm"))) {
		fprintf(stderr, "usage: team base|thp MIB THREADS BUSY_PERCENT [shared|calm]\n");
		return 2;
	}
	busy = atoi(argv[4]) / 100.0;
	shared = argc == 6 && !strcmp(argv[5], "shared");
	if (argc == 6)
		period = 50e-3;
	part_words = (strtoul(argv[2], NULL, 10) << 20) / sizeof(*memory);
	n_words = n_threads * part_words;
	bytes = n_words * sizeof(*memory);
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &term, NULL);

	mapped = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mapped == MAP_FAILED)
		fail("mmap");
	memory = (uint64_t *)(((uintptr_t)mapped + HUGE - 1) & ~(HUGE - 1));
	if (madvise(memory, bytes, strcmp(argv[1], "thp") ? MADV_NOHUGEPAGE : MADV_HUGEPAGE))
		fail("madvise");
	run_on(0);
	for (size_t i = 0; i < n_words; i++)
		memory[i] = expected(i);
	for (size_t i = 0; i < n_threads; i++)
		if (pthread_create(&threads[i], NULL, work, (void *)i))
			fail("pthread_create");
	printf("ready %p\n", (void *)memory);
	fflush(stdout);

	sigwait(&term, &number);
	atomic_store(&stop, true);
	for (size_t i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < n_words; i++) {
		if (memory[i] != expected(i)) {
			printf("corrupt at %p\n", (void *)&memory[i]);
			return 1;
		}
	}
	printf("verified %zu pages\n", bytes / PAGE);
	return 0;
}
