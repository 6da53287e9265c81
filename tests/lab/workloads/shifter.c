// SPDX-License-Identifier: MIT
/*
 * A process whose memory will not stay as it is while somebody moves it, and every word of which is known.
 *
 *   shifter ACT MIB CPU SEED COUNTERS
 *   shifter write NAP_MS COUNTERS WORD OTHER_WORD FILE...
 *
 * The memory is MIB at BASE, whatever the incarnation: blocks of 2 MiB, by turns of base pages and of huge ones. ACT says
 * what happens over and over until COUNTERS.phase is REST:
 *   munmap  cells of the upper half are unmapped, mapped anew and filled
 *   mremap  they change places, grow over the cell behind them, and shrink
 *   fork    a child writes some of the memory, and so does the parent: both copy
 *   exec    the process becomes itself again, with new memory
 *   exit    it exits, and the next one takes its place (COUNTERS.pid), children of a parent without that memory
 *   touch   two threads on different CPUs write new words everywhere
 * Then nothing changes any more (COUNTERS.resting), until phase FINISH: every word is checked, "verified N pages" printed,
 * and the exit status is 0 if no word was ever wrong. It checks what it is about to change or lose, too.
 *
 * `write` gives a control file WORD, naps, and gives it OTHER_WORD, one FILE after the other, until phase REST; a file
 * that refuses WORD is left out this time. COUNTERS.succeeded counts the WORDs taken.
 */
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BASE 0x100000000000ul
#define PAGE 4096ul
#define WORDS (PAGE / sizeof(uint64_t))
#define HUGE_PAGES 512ul
#define CELL 32ul /* pages that share a fate; a divisor of HUGE_PAGES */
#define MAX_PAGES 16384ul

enum { RUN, REST, FINISH };

/* As tests/lab/workloads/shifter.py reads it. */
struct counters {
	_Atomic uint64_t phase, pid, begun, done, succeeded, wrong, resting, tags;
};

static struct counters *shared;
static uint64_t tag_of[MAX_PAGES]; /* what the words of a page derive from; 0: not mapped */
static size_t n_pages;
static uint64_t dice;

static void nap(unsigned long milliseconds)
{
	struct timespec t = { (time_t)(milliseconds / 1000), (long)(milliseconds % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

static uint64_t roll(uint64_t sides)
{
	dice ^= dice << 13;
	dice ^= dice >> 7;
	dice ^= dice << 17;
	return (dice >> 11) % sides;
}

static uint64_t *page_at(size_t page)
{
	return (uint64_t *)(BASE + page * PAGE);
}

static uint64_t expected(uint64_t tag, size_t i)
{
	return (tag * WORDS + i) * UINT64_C(0x9E3779B97F4A7C15);
}

static void fill(size_t first, size_t n)
{
	for (size_t page = first; page < first + n; page++) {
		tag_of[page] = atomic_fetch_add(&shared->tags, 1) + 1;
		for (size_t i = 0; i < WORDS; i++)
			page_at(page)[i] = expected(tag_of[page], i);
	}
}

/* Check every word of the pages that are mapped; returns their number. */
static size_t check(size_t first, size_t n)
{
	size_t mapped = 0;

	for (size_t page = first; page < first + n; page++) {
		if (!tag_of[page])
			continue;
		mapped++;
		for (size_t i = 0; i < WORDS; i++) {
			if (page_at(page)[i] != expected(tag_of[page], i)) {
				fprintf(stderr, "shifter: corrupt at %p\n", (void *)&page_at(page)[i]);
				atomic_fetch_add(&shared->wrong, 1);
				break;
			}
		}
	}
	return mapped;
}

/* Map pages of one block, in the kind of that block. */
static void map(size_t first, size_t n)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
	int advice = first / HUGE_PAGES % 2 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;

	if (mmap(page_at(first), n * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0) != page_at(first))
		fail("mmap");
	if (madvise(page_at(first), n * PAGE, advice))
		fail("madvise");
	fill(first, n);
}

static void map_all(void)
{
	for (size_t page = 0; page < n_pages; page += HUGE_PAGES)
		map(page, HUGE_PAGES);
}

static void unmap(size_t cell)
{
	check(cell, CELL);
	if (munmap(page_at(cell), CELL * PAGE))
		fail("munmap");
	memset(&tag_of[cell], 0, CELL * sizeof(*tag_of));
}

/* A cell of the upper half, by its first page. */
static size_t any_cell(void)
{
	return n_pages / 2 + roll(n_pages / 2 / CELL) * CELL;
}

static void act_munmap(void)
{
	size_t cell = any_cell();

	if (tag_of[cell])
		unmap(cell);
	else
		map(cell, CELL);
}

static void act_mremap(void)
{
	size_t from = any_cell(), to = any_cell(), next;

	while (!tag_of[from])
		from = any_cell();
	next = from + CELL;
	if (next < n_pages && roll(2)) {
		size_t before = tag_of[next] ? 2 : 1, after = 3 - before;

		check(from, 2 * CELL);
		if (mremap(page_at(from), before * CELL * PAGE, after * CELL * PAGE, 0) != page_at(from))
			fail("mremap in place");
		if (after == 2)
			fill(next, CELL);
		else
			memset(&tag_of[next], 0, CELL * sizeof(*tag_of));
		return;
	}
	if (to == from)
		return;
	if (tag_of[to])
		unmap(to);
	if (mremap(page_at(from), CELL * PAGE, CELL * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page_at(to)) != page_at(to))
		fail("mremap");
	memcpy(&tag_of[to], &tag_of[from], CELL * sizeof(*tag_of));
	memset(&tag_of[from], 0, CELL * sizeof(*tag_of));
	check(to, CELL);
	if (roll(2))
		map(from, CELL);
}

static void rewrite_some(size_t cells)
{
	while (cells--) {
		size_t cell = any_cell();

		check(cell, CELL);
		fill(cell, CELL);
		check(cell, CELL);
	}
}

static void act_fork(void)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		fail("fork");
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		roll(2); /* not the parent's cells */
		rewrite_some(4);
		nap(1 + roll(20));
		check(0, n_pages);
		_exit(0);
	}
	rewrite_some(2);
	if (waitpid(child, &status, 0) != child || status)
		fail("a child");
}

static void wait_for(uint64_t phase)
{
	while (atomic_load(&shared->phase) < phase)
		nap(5);
}

/* Reading everything has the kernel's balancing forget what it was about to see: 6.1 calls those pages absent. */
static void rest(void)
{
	check(0, n_pages);
	atomic_store(&shared->resting, 1);
	wait_for(FINISH);
}

/* One of those that take each other's place. */
static void live(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	map_all();
	atomic_store(&shared->pid, (uint64_t)getpid());
	for (uint64_t left = 2 + roll(40); left; left--) {
		check(any_cell(), CELL);
		nap(5);
	}
	if (atomic_load(&shared->phase) >= REST) {
		rest();
		atomic_store(&shared->succeeded, check(0, n_pages));
	}
	atomic_fetch_add(&shared->begun, 1);
	_exit(0);
}

static size_t take_turns(void)
{
	while (!atomic_load(&shared->resting)) {
		pid_t child;
		int status;

		roll(2); /* another life than the one before */
		child = fork();
		if (child < 0)
			fail("fork");
		if (child == 0)
			live();
		if (waitpid(child, &status, 0) != child || status)
			fail("a child");
		atomic_fetch_add(&shared->done, 1);
	}
	return atomic_load(&shared->succeeded);
}

/* One of two threads: every other cell is its own. */
static void *touch(void *argument)
{
	size_t which = argument ? 1 : 0;

	if (argument)
		run_on(*(int *)argument);
	while (atomic_load(&shared->phase) == RUN) {
		for (size_t cell = which * CELL; cell < n_pages; cell += 2 * CELL) {
			check(cell, CELL);
			fill(cell, CELL);
			if (cell / CELL % 16 == which)
				nap(1);
		}
		atomic_fetch_add(&shared->begun, 1);
		atomic_fetch_add(&shared->done, 1);
	}
	return NULL;
}

static void touch_all(int other_cpu)
{
	pthread_t other;

	if (pthread_create(&other, NULL, touch, &other_cpu))
		fail("pthread_create");
	touch(NULL);
	pthread_join(other, NULL);
}

static void repeat(void (*act)(void))
{
	while (atomic_load(&shared->phase) == RUN) {
		atomic_fetch_add(&shared->begun, 1);
		act();
		atomic_fetch_add(&shared->done, 1);
		nap(1);
	}
}

static int put(const char *path, const char *word)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t written;

	if (fd < 0)
		fail(path);
	atomic_fetch_add(&shared->begun, 1);
	written = write(fd, word, strlen(word));
	atomic_fetch_add(&shared->done, 1);
	close(fd);
	return written == (ssize_t)strlen(word) ? 0 : -1;
}

static void write_by_turns(unsigned long nap_ms, const char *word, const char *other_word, char **paths)
{
	printf("ready\n");
	fflush(stdout);
	for (char **path = paths; atomic_load(&shared->phase) == RUN; path = path[1] ? path + 1 : paths) {
		if (!put(*path, word)) {
			atomic_fetch_add(&shared->succeeded, 1);
			nap(nap_ms);
			if (put(*path, other_word))
				fail(*path);
		}
		nap(nap_ms);
	}
}

static void attach(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fail(path);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		fail("mmap of the counters");
	close(fd);
}

int main(int argc, char **argv)
{
	const char *act = argc > 5 ? argv[1] : "";
	size_t verified;
	int cpu;

	if (!strcmp(act, "write")) {
		attach(argv[3]);
		write_by_turns(strtoul(argv[2], NULL, 10), argv[4], argv[5], &argv[6]);
		return 0;
	}
	n_pages = argc == 6 ? strtoul(argv[2], NULL, 10) << 8 : 0;
	if (!n_pages || n_pages % HUGE_PAGES || n_pages > MAX_PAGES) {
		fprintf(stderr, "usage: shifter ACT MIB CPU SEED COUNTERS\n"
				"       shifter write NAP_MS COUNTERS WORD OTHER_WORD FILE...\n");
		return 2;
	}
	cpu = atoi(argv[3]);
	attach(argv[5]);
	run_on(cpu);
	dice = (strtoul(argv[4], NULL, 10) + atomic_load(&shared->done) + 1) * UINT64_C(0xBF58476D1CE4E5B9);
	if (strcmp(act, "exit"))
		map_all();
	if (!atomic_load(&shared->begun)) {
		atomic_store(&shared->pid, strcmp(act, "exit") ? (uint64_t)getpid() : 0);
		printf("ready\n");
		fflush(stdout);
	}
	if (!strcmp(act, "exit")) {
		verified = take_turns();
	} else {
		if (!strcmp(act, "munmap")) {
			repeat(act_munmap);
		} else if (!strcmp(act, "mremap")) {
			repeat(act_mremap);
		} else if (!strcmp(act, "fork")) {
			repeat(act_fork);
		} else if (!strcmp(act, "touch")) {
			touch_all(cpu ^ 1);
		} else if (!strcmp(act, "exec")) {
			atomic_store(&shared->done, atomic_load(&shared->begun));
			nap(10 + roll(60));
			if (atomic_load(&shared->phase) == RUN) {
				check(0, n_pages);
				atomic_fetch_add(&shared->begun, 1);
				execv("/proc/self/exe", argv);
				fail("execv");
			}
		} else {
			errno = EINVAL;
			fail(act);
		}
		rest();
		verified = check(0, n_pages);
	}
	printf("verified %zu pages\n", verified);
	return atomic_load(&shared->wrong) ? 1 : 0;
}
