// SPDX-License-Identifier: MIT
/*
 * A process with a hot part of memory, written all the time, and a cold one behind it, never used after it was filled.
 *
 *   warm HOT_MIB COLD_MIB BUSY_PERCENT
 *
 * "ready ADDRESS" tells where the hot part begins; both are of base pages. It runs on CPU 1 until it is killed. It goes
 * over the hot part page by page, so that a look finds all of it in use: DAMON takes neighbours for one whose accesses
 * differ by a tenth of the looks, so what is used at random, and seldom while the machine is slow, is lost among the
 * cold. Naps are those of hog.c, and for the same reason. The TLB of an emulator holds all of the hot part, and a page
 * that is found there is not marked as accessed again; a processor's TLB is too small for that. So the program has the
 * kernel empty it: giving back more than 33 pages at once does (tlb_single_page_flush_ceiling).
 */
#include "program.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ul
#define HUGE (2ul << 20)
#define SCRATCH_PAGES 40
#define PAGES_PER_SLICE 256 /* at least between two naps, however slow the machine is */

static char *map(size_t bytes)
{
	char *mapped = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mapped == MAP_FAILED)
		fail("mmap");
	mapped = (char *)(((uintptr_t)mapped + HUGE - 1) & ~(HUGE - 1));
	if (madvise(mapped, bytes, MADV_NOHUGEPAGE))
		fail("madvise");
	return mapped;
}

static void empty_the_tlb(char *scratch)
{
	for (size_t i = 0; i < SCRATCH_PAGES; i++)
		scratch[i * PAGE] = 1;
	if (madvise(scratch, SCRATCH_PAGES * PAGE, MADV_DONTNEED))
		fail("madvise");
}

int main(int argc, char **argv)
{
	size_t hot_pages, all_pages;
	struct timespec nap = { 0 };
	char *memory, *scratch;
	double busy;

	if (argc != 4 || atoi(argv[1]) < 1 || atoi(argv[2]) < 1 || atoi(argv[3]) < 1 || atoi(argv[3]) > 95) {
		fprintf(stderr, "usage: warm HOT_MIB COLD_MIB BUSY_PERCENT\n");
		return 2;
	}
	busy = atoi(argv[3]) / 100.0;
	nap.tv_nsec = (long)((1 - busy) * 1e6);
	hot_pages = (size_t)atoi(argv[1]) << 8;
	all_pages = hot_pages + ((size_t)atoi(argv[2]) << 8);
	run_on(1);
	memory = map(all_pages * PAGE);
	scratch = map(SCRATCH_PAGES * PAGE);
	for (size_t i = 0; i < all_pages; i++)
		memory[i * PAGE] = 1;
	printf("ready %p\n", (void *)memory);
	fflush(stdout);
	for (size_t page = 0;;) {
		double busy_until = now() + busy * 1e-3;

		do {
			for (size_t i = 0; i < PAGES_PER_SLICE; i++) {
				memory[page * PAGE]++;
				page = (page + 1) % hot_pages;
			}
			if (page == 0)
				empty_the_tlb(scratch);
		} while (now() < busy_until);
		nanosleep(&nap, NULL);
	}
}
