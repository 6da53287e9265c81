// SPDX-License-Identifier: MIT
/*
 * A process whose memory grows when it is told to, and which the kernel's OOM killer takes first.
 *
 *   grower FIRST_MIB STEP_MIB MOST_MIB
 *
 * It fills FIRST_MIB and prints "ready"; at each SIGUSR1 it fills STEP_MIB more and prints "grown MIB", all it has. It has
 * base pages wherever its cpuset and the kernel's default let it have them. SIGTERM ends it: it checks every page, prints
 * "verified N pages" and exits 0, or prints the first wrong address and exits 1.
 */
#include "program.h"

#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>

#define PAGE 4096ul
#define PAGES_PER_MIB 256ul

static void fill(uint64_t *memory, size_t from, size_t to)
{
	for (size_t page = from; page < to; page++)
		memory[page * PAGE / sizeof(*memory)] = page + 1;
}

int main(int argc, char **argv)
{
	size_t filled, step, most;
	uint64_t *memory;
	sigset_t set;
	FILE *score;
	int got;

	if (argc != 4 || atol(argv[1]) < 1 || atol(argv[2]) < 1 || atol(argv[3]) < atol(argv[1])) {
		fprintf(stderr, "usage: grower FIRST_MIB STEP_MIB MOST_MIB\n");
		return 2;
	}
	filled = (size_t)atol(argv[1]) * PAGES_PER_MIB;
	step = (size_t)atol(argv[2]) * PAGES_PER_MIB;
	most = (size_t)atol(argv[3]) * PAGES_PER_MIB;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		fail("sigprocmask");
	score = fopen("/proc/self/oom_score_adj", "w");
	if (!score || fputs("1000", score) < 0 || fclose(score))
		fail("oom_score_adj");
	memory = mmap(NULL, most * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	if (madvise(memory, most * PAGE, MADV_NOHUGEPAGE))
		fail("madvise");
	fill(memory, 0, filled);
	printf("ready\n");
	fflush(stdout);
	while (!sigwait(&set, &got) && got == SIGUSR1) {
		size_t to = filled + step < most ? filled + step : most;

		fill(memory, filled, to);
		filled = to;
		printf("grown %zu\n", filled / PAGES_PER_MIB);
		fflush(stdout);
	}
	for (size_t page = 0; page < filled; page++) {
		if (memory[page * PAGE / sizeof(*memory)] != page + 1) {
			printf("corrupt at %p\n", (void *)&memory[page * PAGE / sizeof(*memory)]);
			return 1;
		}
	}
	printf("verified %zu pages\n", filled);
	return 0;
}
