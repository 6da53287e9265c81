// SPDX-License-Identifier: MIT
/*
 * Processes that do a fixed amount of work on memory, and know how long each of their rounds took.
 *
 *   loads WORK ROUNDS ACCESS PAGES PROCESS...
 *
 * WORK units of ROUNDS rounds are done by all threads of all processes together: each takes the next unit that nobody
 * has taken, so that they end together and the work is the same whoever does it. A round reads one page, line by line.
 *
 * ACCESS   scan: pages in random order, some of their lines are written to. list: the same, but each address comes out
 *          of the line before. phases:UNITS: like scan, on a quarter of the memory, and on the next one every UNITS
 *          units. storm: each unit is done by a process of its own, whose memory is as young, and which verifies it
 * PAGES    base or hugetlb
 * PROCESS  one or more PARTs with a slash between: a process with a thread for each of them, the first its main thread
 * PART     CPU=MIB@TOUCH: the memory of a thread on CPU. all=MIB@TOUCH: one that all threads read by turns with theirs
 * TOUCH    CPU, or CPU:N,CPU:N,...: on which CPUs pages are first touched, by the main thread; N on one, N on the next,
 *          and around again. It is on CPU of its thread only when the work begins. No mempolicy is left behind
 *
 * The parent does nothing but to keep the conversation. It says "ready PID..." (the processes), and obeys a line each:
 *
 *   go                 work. "three-quarters" when so much is done, then "done UNITS"
 *   gaps               after the work, a line for each thread as in gaps.h; their names are load-0, load-1 and so on
 *   flip PART OFFSET   invert a byte of the first process before it verifies: a test of the verification
 *   end                verify every word and exit: "verified N pages" and status 0, or what is wrong and 1
 *
 * When the parent ends or a process dies, everything ends.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "load.h"

static volatile sig_atomic_t ending;

void fail(const char *what)
{
	fprintf(stderr, "loads: %s: %s\n", what, strerror(errno));
	_exit(2);
}

void reject(const char *what)
{
	fprintf(stderr, "loads: not understood: %s\n", what);
	exit(2);
}

void wait_for(sem_t *semaphore)
{
	while (sem_wait(semaphore))
		if (errno != EINTR)
			fail("sem_wait");
}

static void child_ended(int signal)
{
	static const char said[] = "died\n";

	(void)signal;
	if (ending)
		return;
	if (write(STDOUT_FILENO, said, sizeof(said) - 1) < 0)
		_exit(3);
	_exit(2);
}

static void start_processes(struct load *load, pid_t *pids)
{
	const struct sigaction action = { .sa_handler = child_ended, .sa_flags = SA_NOCLDSTOP | SA_RESTART };
	pid_t parent = getpid();

	sigaction(SIGCHLD, &action, NULL);
	for (int i = 0; i < load->n_processes; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			fail("fork");
		if (!pids[i]) {
			signal(SIGCHLD, SIG_DFL);
			end_with_parent(parent);
			process_run(&load->processes[i]);
		}
	}
	for (int i = 0; i < load->n_processes; i++)
		wait_for(&load->board->ready);
	printf("ready");
	for (int i = 0; i < load->n_processes; i++)
		printf(" %d", pids[i]);
	printf("\n");
}

static void let_go(const struct load *load)
{
	for (int i = 0; i < load->n_processes; i++)
		sem_post(&load->board->start);
}

static void await_work(const struct load *load)
{
	wait_for(&load->board->milestone);
	printf("three-quarters\n");
	fflush(stdout);
	wait_for(&load->board->milestone);
	printf("done %lu\n", load->board->done);
	for (int i = 0; i < load->n_threads; i++)
		wait_for(&load->board->finished);
}

static void tell_gaps(const struct load *load)
{
	char name[16];

	for (int i = 0; i < load->n_threads; i++) {
		snprintf(name, sizeof(name), "load-%d", i);
		gaps_print(name, &load->board->gaps[i]);
	}
}

static void flip(const struct load *load, const char *line)
{
	size_t part, offset;

	if (sscanf(line, "flip %zu %zu", &part, &offset) != 2 || part >= (size_t)load->processes[0].n_parts ||
	    offset >= load->processes[0].bytes[part])
		reject(line);
	load->board->flip_part = part;
	load->board->flip_offset = offset;
	load->board->flips = true;
}

static int end(const struct load *load, const pid_t *pids)
{
	int status;

	ending = 1;
	for (int i = 0; i < load->n_processes; i++)
		sem_post(&load->board->check);
	for (int i = 0; i < load->n_processes; i++)
		if ((waitpid(pids[i], &status, 0) != pids[i] || status) && !*load->board->wrong)
			snprintf(load->board->wrong, SAID, "process %d ended with wait status %d", pids[i], status);
	if (*load->board->wrong)
		printf("%s\n", load->board->wrong);
	else
		printf("verified %lu pages\n", load->board->verified_pages);
	return *load->board->wrong != 0;
}

int main(int argc, char **argv)
{
	static struct load load;
	struct board *board;
	pid_t pids[MAX_THREADS];
	char line[64];

	if (argc < 6) {
		fprintf(stderr, "usage: loads WORK ROUNDS ACCESS PAGES PROCESS...\n");
		return 2;
	}
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		fail("mmap");
	load.board = board;
	load_parse(&load, argc, argv);
	if (sem_init(&board->ready, 1, 0) || sem_init(&board->start, 1, 0) || sem_init(&board->milestone, 1, 0) ||
	    sem_init(&board->finished, 1, 0) || sem_init(&board->check, 1, 0))
		fail("sem_init");
	start_processes(&load, pids);
	for (bool has_gone = false;;) {
		fflush(stdout);
		if (!fgets(line, sizeof(line), stdin))
			return 3;
		if (!strcmp(line, "go\n") && !has_gone && load.work) {
			has_gone = true;
			let_go(&load);
			await_work(&load);
		} else if (!strcmp(line, "gaps\n")) {
			tell_gaps(&load);
		} else if (!strncmp(line, "flip ", 5)) {
			flip(&load, line);
		} else if (!strcmp(line, "end\n")) {
			if (!has_gone) {
				board->taken = load.work;
				let_go(&load);
			}
			return end(&load, pids);
		} else {
			reject(line);
		}
	}
}
