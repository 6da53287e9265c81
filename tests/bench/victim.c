// SPDX-License-Identifier: MIT
/*
 * A process whose threads feel it when their memory is moved, and say how long.
 *
 *   victim MIB FIRST_CPU CPU     the process
 *   victim beat CPU MICROSECONDS a bystander that wakes so often on another CPU, until it is killed
 *
 * MIB of anonymous base pages are touched on FIRST_CPU, which places them by first touch and leaves no mempolicy behind.
 * Then two threads loop on CPU and on the one behind it: "touch" writes to one random page of that memory a round, "map"
 * maps a few pages, touches them and unmaps them, for which it needs mmap_lock. Each keeps a histogram of its gaps: the
 * time from one round to the next. The first thread stays on FIRST_CPU and sleeps. It prints "ready PID START END" (hex),
 * and then obeys a line each:
 *
 *   lap     print for each thread its name, longest gap, time in gaps of LONG_NS or more (ns), and pairs END:GAPS, the
 *           gaps between END (ns) and the pair before; and start afresh. A gap counts when it ends
 *   end     check every word and every count of writes; "verified N pages" and status 0, or what is wrong and 1
 *
 * Now and then they execute a pause instruction, at which an emulator that runs all virtual CPUs in one thread goes on to
 * the next; so it does when a timer expires, which is what the beat is good for.
 */
#include "../lab/workloads/program.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "gaps.h"

#define PAGE 4096
#define WORDS (PAGE / sizeof(uint64_t))
#define HUGE (2ul << 20)
#define MAPPED_PAGES 16

struct feeler {
	const char *name;
	int cpu;
	unsigned int rounds_a_pause;
	void (*round)(uint64_t *random);
	atomic_uint wanted, done; /* laps */
	struct gaps now, lap;
};

static uint64_t *memory;
static uint32_t *written;
static size_t n_pages;
static atomic_int stop;

static uint64_t expected(size_t i)
{
	return (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
}

/* Word 0 of each page counts the writes to it. */
static void touch(uint64_t *random)
{
	size_t page;

	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	page = *random % n_pages;
	memory[page * WORDS]++;
	written[page]++;
}

static void map(uint64_t *random)
{
	char *area = mmap(NULL, MAPPED_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)random;
	if (area == MAP_FAILED)
		fail("mmap");
	for (int i = 0; i < MAPPED_PAGES; i++)
		*(volatile char *)(area + i * PAGE) = 1;
	if (munmap(area, MAPPED_PAGES * PAGE))
		fail("munmap");
}

static void *feel(void *argument)
{
	struct feeler *f = argument;
	uint64_t random = UINT64_C(88172645463325252), last, now;

	run_on(f->cpu);
	last = now_ns();
	for (unsigned int i = 0; !atomic_load_explicit(&stop, memory_order_relaxed); i++) {
		unsigned int wanted;

		f->round(&random);
		now = now_ns();
		gaps_count(&f->now, now - last);
		last = now;
		wanted = atomic_load(&f->wanted);
		if (wanted != f->done) {
			f->lap = f->now;
			memset(&f->now, 0, sizeof(f->now));
			last = now_ns();
			atomic_store(&f->done, wanted);
		}
		if (i % f->rounds_a_pause == 0)
			__builtin_ia32_pause();
	}
	return NULL;
}

static void lap(struct feeler *f)
{
	unsigned int wanted = f->wanted + 1;

	atomic_store(&f->wanted, wanted);
	while (atomic_load(&f->done) != wanted)
		usleep(1000);
	gaps_print(f->name, &f->lap);
}

static void beat(int cpu, long microseconds)
{
	struct timespec pause = { .tv_sec = microseconds / 1000000, .tv_nsec = microseconds % 1000000 * 1000 };

	run_on(cpu);
	prctl(PR_SET_TIMERSLACK, 1ul);
	for (;;)
		nanosleep(&pause, NULL);
}

static int verify(void)
{
	for (size_t i = 0; i < n_pages * WORDS; i++) {
		uint64_t want = expected(i) + (i % WORDS ? 0 : written[i / WORDS]);

		if (memory[i] != want) {
			printf("corrupt at %p: %llx instead of %llx\n", (void *)&memory[i],
			       (unsigned long long)memory[i], (unsigned long long)want);
			return 1;
		}
	}
	printf("verified %zu pages\n", n_pages);
	return 0;
}

int main(int argc, char **argv)
{
	static struct feeler feelers[] = { { .name = "touch", .round = touch, .rounds_a_pause = 16 },
					   { .name = "map", .round = map, .rounds_a_pause = 1 } };
	enum { N = sizeof(feelers) / sizeof(feelers[0]) };
	pthread_t threads[N];
	size_t bytes;
	char line[16];

	if (argc != 4) {
		fprintf(stderr, "usage: victim MIB FIRST_CPU CPU | victim beat CPU MICROSECONDS\n");
		return 2;
	}
	if (!strcmp(argv[1], "beat"))
		beat(atoi(argv[2]), atol(argv[3]));
	bytes = strtoul(argv[1], NULL, 10) << 20;
	n_pages = bytes / PAGE;
	run_on(atoi(argv[3]));
	written = malloc(n_pages * sizeof(*written));
	if (!written)
		fail("malloc");
	memset(written, 0, n_pages * sizeof(*written));
	/* inaccessible on both sides, lest it become one mapping with a stack */
	memory = mmap(NULL, bytes + 3 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	memory = (uint64_t *)(((uintptr_t)memory + 2 * HUGE - 1) & ~(HUGE - 1));
	if (mprotect(memory, bytes, PROT_READ | PROT_WRITE) || madvise(memory, bytes, MADV_NOHUGEPAGE))
		fail("madvise");
	run_on(atoi(argv[2]));
	for (size_t i = 0; i < n_pages * WORDS; i++)
		memory[i] = expected(i);
	for (int i = 0; i < N; i++) {
		feelers[i].cpu = atoi(argv[3]) + i;
		if ((errno = pthread_create(&threads[i], NULL, feel, &feelers[i])))
			fail("pthread_create");
	}
	printf("ready %d %" PRIxPTR " %" PRIxPTR "\n", getpid(), (uintptr_t)memory, (uintptr_t)memory + bytes);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) && strcmp(line, "end\n")) {
		for (int i = 0; i < N; i++)
			lap(&feelers[i]);
		fflush(stdout);
	}
	atomic_store(&stop, 1);
	for (int i = 0; i < N; i++)
		pthread_join(threads[i], NULL);
	return verify();
}
