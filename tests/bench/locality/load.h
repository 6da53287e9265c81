/* SPDX-License-Identifier: MIT */
/* One run of loads.c: what it was told, and the board that its processes share. */
#ifndef LOAD_H
#define LOAD_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "../gaps.h"
#include "part.h"

#define MAX_THREADS 16
#define SAID 128

enum access { SCAN, LIST, PHASES, STORM };

struct load;

struct process {
	struct load *load;
	int n_parts, n_threads, first_thread;
	struct part parts[MAX_THREADS + 1], *shared; /* shared: the last part, or NULL */
	size_t bytes[MAX_THREADS + 1];
	struct touch touches[MAX_THREADS + 1];
	int cpus[MAX_THREADS];
};

/* What all processes see. */
struct board {
	atomic_ulong taken, done;
	sem_t ready, start, milestone, finished, check;
	bool flips;
	size_t flip_part, flip_offset;
	atomic_ulong verified_pages;
	char wrong[SAID]; /* the first complaint, or one of them */
	struct gaps gaps[MAX_THREADS];
};

struct load {
	enum access access;
	unsigned long work, rounds, units_a_phase;
	struct process processes[MAX_THREADS];
	int n_processes, n_threads;
	struct board *board;
};

/* Read the command line; what is not understood is said, and ends the program. */
void load_parse(struct load *load, int argc, char **argv);

/* Be one of the processes, from its memory to its verification; returns in none. */
_Noreturn void process_run(struct process *process);

/* End when the parent does. */
void end_with_parent(pid_t parent);

/* Say what failed, and why, and end. */
_Noreturn void fail(const char *what);
_Noreturn void reject(const char *what);

void wait_for(sem_t *semaphore);

#endif
