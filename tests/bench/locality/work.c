// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "load.h"

struct thread {
	struct process *process;
	int number; /* in its process */
	struct gaps gaps;
	uint64_t random, sum;
	char *own_line, *shared_line;
};

static size_t random_below(uint64_t *random, size_t end)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return *random % end;
}

static void round_of_list(struct thread *t, bool is_shared)
{
	if (is_shared)
		part_follow(t->process->shared, &t->shared_line, false);
	else
		part_follow(&t->process->parts[t->number], &t->own_line, true);
}

static void round_of_scan(struct thread *t, bool is_shared, size_t first_page, size_t n_pages)
{
	if (is_shared)
		t->sum += part_read(t->process->shared, random_below(&t->random, t->process->shared->n_pages));
	else
		t->sum += part_scan(&t->process->parts[t->number], first_page + random_below(&t->random, n_pages));
}

static void do_unit(struct thread *t, unsigned long unit)
{
	const struct load *load = t->process->load;
	size_t n_pages = t->process->parts[t->number].n_pages, first_page = 0;

	if (load->access == PHASES) {
		n_pages /= 4;
		first_page = unit / load->units_a_phase % 4 * n_pages;
	}
	for (uint64_t i = 0, last = now_ns(), now; i < load->rounds; i++, last = now) {
		bool is_shared = t->process->shared && i % 2;

		if (load->access == LIST)
			round_of_list(t, is_shared);
		else
			round_of_scan(t, is_shared, first_page, n_pages);
		now = now_ns();
		gaps_count(&t->gaps, now - last);
	}
}

static void verify(const struct process *process)
{
	struct board *board = process->load->board;

	if (board->flips && process == process->load->processes)
		process->parts[board->flip_part].memory[board->flip_offset] ^= 0xff;
	for (int i = 0; i < process->n_parts; i++) {
		const struct part *part = &process->parts[i];
		uint64_t want;
		const uint64_t *wrong = part_find_wrong(part, &want);

		if (wrong)
			snprintf(board->wrong, SAID, "corrupt at byte %td of part %d: %" PRIx64 " instead of %" PRIx64,
				 (const char *)wrong - part->memory, i, *wrong, want);
		else
			atomic_fetch_add(&board->verified_pages, part->n_pages);
	}
}

static void make_parts(struct process *process)
{
	for (int i = 0; i < process->n_parts; i++)
		if (!part_make(&process->parts[i], process->bytes[i], &process->touches[i]))
			fail("memory for a part");
}

void end_with_parent(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		fail("prctl");
	if (getppid() != parent)
		_exit(3);
}

static void be_stormed(struct thread *t, unsigned long unit)
{
	struct board *board = t->process->load->board;
	pid_t parent = getpid(), pid = fork();
	int status;

	if (pid < 0)
		fail("fork");
	if (!pid) {
		end_with_parent(parent);
		make_parts(t->process);
		do_unit(t, unit);
		gaps_add(&board->gaps[t->process->first_thread], &t->gaps);
		verify(t->process);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid)
		fail("waitpid");
	if (status)
		snprintf(board->wrong, SAID, "a process of the storm ended with wait status %d", status);
}

static void *work(void *argument)
{
	struct thread *t = argument;
	const struct load *load = t->process->load;
	struct board *board = load->board;
	int number = t->process->first_thread + t->number;
	unsigned long unit, done, all = load->work;
	char name[16];

	snprintf(name, sizeof(name), "load-%d", number);
	prctl(PR_SET_NAME, name);
	if (!run_on(t->process->cpus[t->number]))
		fail("sched_setaffinity");
	while ((unit = atomic_fetch_add(&board->taken, 1)) < all) {
		if (load->access == STORM)
			be_stormed(t, unit);
		else
			do_unit(t, unit);
		done = atomic_fetch_add(&board->done, 1) + 1;
		if (done == all - all / 4)
			sem_post(&board->milestone);
		if (done == all)
			sem_post(&board->milestone);
	}
	if (load->access != STORM)
		board->gaps[number] = t->gaps;
	sem_post(&board->finished);
	return NULL;
}

void process_run(struct process *process)
{
	const struct load *load = process->load;
	struct board *board = load->board;
	static struct thread threads[MAX_THREADS];
	pthread_t ids[MAX_THREADS];

	if (load->access != STORM)
		make_parts(process);
	sem_post(&board->ready);
	wait_for(&board->start);
	for (int i = 0; i < process->n_threads; i++) {
		struct part *shared = process->shared;

		threads[i] = (struct thread){ .process = process, .number = i };
		threads[i].random = (uint64_t)(process->first_thread + i + 1) * UINT64_C(88172645463325252);
		threads[i].own_line = process->parts[i].memory;
		if (shared)
			threads[i].shared_line = shared->memory + shared->n_pages * i / process->n_threads * PAGE;
		if (i && (errno = pthread_create(&ids[i], NULL, work, &threads[i])))
			fail("pthread_create");
	}
	work(&threads[0]);
	for (int i = 1; i < process->n_threads; i++)
		pthread_join(ids[i], NULL);
	wait_for(&board->check);
	if (load->access != STORM)
		verify(process);
	_exit(0);
}
