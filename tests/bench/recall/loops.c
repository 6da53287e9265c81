// SPDX-License-Identifier: MIT
/*
 * Programs in small: what they access is what such programs access, over and over, until they are killed.
 *
 *   loops KIND MIB CPU[,CPU...]
 *
 *   list    each thread follows a linked list of its own, in random order
 *   join    each thread looks up keys of its own, in order, in a hash table that all share (half of the memory)
 *   memcpy  each thread copies one half of its memory to the other by the C library, a MiB at a time
 *   copy    the same by a loop of its own with vector registers (AVX2), two arrays and one index
 *   matrix  each thread computes its own rows of C = A B; B is shared
 *
 * MIB is what all threads have together. The main thread touches all of it first, on the first CPU. Says "ready".
 */
#include "../../lab/workloads/program.h"

#include <immintrin.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>

#define MAX_THREADS 16
#define LINE 64
#define MIB ((size_t)1 << 20)
#define LOADED 2 /* of so many slots of the hash table one is taken */

struct node {
	struct node *next;
	uint64_t value[LINE / sizeof(uint64_t) - 1];
};

struct slot {
	uint64_t key, value; /* no key is 0 */
};

struct thread {
	int cpu;
	size_t first_row, rows; /* matrix */
	struct node *list;
	uint64_t *keys; /* join */
	size_t n_keys;
	char *from, *to; /* copy */
	size_t bytes;
};

static struct slot *table;
static size_t table_mask;
static float *a, *b, *c;
static size_t n; /* rows and columns */

static volatile uint64_t result; /* or the compiler would leave the work out */

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	return *state ^= *state << 17;
}

static void *memory(size_t bytes)
{
	void *found = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (found == MAP_FAILED)
		fail("mmap");
	return memset(found, 0, bytes);
}

/* Each node's place in the list is random, and the list ends where it begins (Sattolo's shuffle). */
static struct node *make_list(size_t bytes, uint64_t *state)
{
	size_t count = bytes / sizeof(struct node);
	struct node *nodes = memory(bytes);
	uint32_t *order = malloc(count * sizeof(*order));

	if (!order)
		fail("malloc");
	for (size_t i = 0; i < count; i++)
		order[i] = (uint32_t)i;
	for (size_t i = count - 1; i > 0; i--) {
		size_t other = next_random(state) % i;
		uint32_t kept = order[i];

		order[i] = order[other];
		order[other] = kept;
	}
	for (size_t i = 0; i < count; i++) {
		nodes[order[i]].next = &nodes[order[(i + 1) % count]];
		nodes[order[i]].value[0] = i;
	}
	free(order);
	return nodes;
}

static size_t slot_of(uint64_t key)
{
	return (key * UINT64_C(0x9e3779b97f4a7c15) >> 20) & table_mask;
}

static void make_table(size_t bytes)
{
	size_t slots = 1;

	while (2 * slots * sizeof(*table) <= bytes)
		slots *= 2;
	table_mask = slots - 1;
	table = memory(slots * sizeof(*table));
	for (uint64_t key = 1; key <= slots / LOADED; key++) {
		size_t at = slot_of(key);

		while (table[at].key)
			at = (at + 1) & table_mask;
		table[at] = (struct slot){ key, key };
	}
}

static void follow(struct thread *self)
{
	uint64_t sum = 0;

	for (int i = 0; i < 1 << 16; i++, self->list = self->list->next)
		sum += self->list->value[0];
	result += sum;
}

static void look_up(struct thread *self)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < self->n_keys; i++) {
		uint64_t key = self->keys[i];
		size_t at = slot_of(key);

		while (table[at].key && table[at].key != key)
			at = (at + 1) & table_mask;
		sum += table[at].value;
	}
	result += sum;
}

static void copy_by_library(struct thread *self)
{
	for (size_t at = 0; at < self->bytes; at += MIB)
		memcpy(self->to + at, self->from + at, MIB);
}

__attribute__((target("avx2"))) static void copy(struct thread *self)
{
	const char *from = self->from;
	char *to = self->to;
	size_t bytes = self->bytes;

	for (size_t at = 0; at < bytes; at += 2 * sizeof(__m256i)) {
		__m256i first = _mm256_loadu_si256((const __m256i *)(from + at));
		__m256i second = _mm256_loadu_si256((const __m256i *)(from + at) + 1);

		_mm256_storeu_si256((__m256i *)(to + at), first);
		_mm256_storeu_si256((__m256i *)(to + at) + 1, second);
	}
}

static void multiply(struct thread *self)
{
	for (size_t row = self->first_row; row < self->first_row + self->rows; row++) {
		float *to = c + row * n;

		for (size_t k = 0; k < n; k++) {
			const float *from = b + k * n, factor = a[row * n + k];

			for (size_t column = 0; column < n; column++)
				to[column] += factor * from[column];
		}
	}
}

static void (*work)(struct thread *self);

static void *run(void *argument)
{
	struct thread *self = argument;

	run_on(self->cpu);
	for (;;)
		work(self);
	return NULL;
}

static void prepare(const char *kind, size_t bytes, struct thread *threads, size_t n_threads)
{
	uint64_t state = 88172645463325252u;
	size_t share = bytes / n_threads;

	if (!strcmp(kind, "list")) {
		work = follow;
		for (size_t i = 0; i < n_threads; i++)
			threads[i].list = make_list(share, &state);
	} else if (!strcmp(kind, "join")) {
		work = look_up;
		make_table(bytes / 2);
		for (size_t i = 0; i < n_threads; i++) {
			threads[i].n_keys = share / 2 / sizeof(uint64_t);
			threads[i].keys = memory(share / 2);
			for (size_t key = 0; key < threads[i].n_keys; key++)
				threads[i].keys[key] = next_random(&state) % (table_mask + 1) / LOADED + 1;
		}
	} else if (!strcmp(kind, "copy") || !strcmp(kind, "memcpy")) {
		work = strcmp(kind, "copy") ? copy_by_library : copy;
		if (work == copy && !__builtin_cpu_supports("avx2")) {
			fprintf(stderr, "loops: this CPU has no AVX2\n");
			exit(2);
		}
		for (size_t i = 0; i < n_threads; i++) {
			threads[i].bytes = share / 2 / MIB * MIB;
			threads[i].from = memory(share / 2);
			threads[i].to = memory(share / 2);
		}
	} else if (!strcmp(kind, "matrix")) {
		work = multiply;
		while (3 * (n + 1) * (n + 1) * sizeof(float) <= bytes)
			n++;
		a = memory(n * n * sizeof(float));
		b = memory(n * n * sizeof(float));
		c = memory(n * n * sizeof(float));
		for (size_t i = 0; i < n * n; i++)
			a[i] = b[i] = (float)(i % 7);
		for (size_t i = 0; i < n_threads; i++) {
			threads[i].first_row = i * n / n_threads;
			threads[i].rows = (i + 1) * n / n_threads - threads[i].first_row;
		}
	} else {
		fprintf(stderr, "loops: no kind %s\n", kind);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct thread threads[MAX_THREADS];
	size_t n_threads = 0;
	pthread_t id;

	if (argc != 4) {
		fprintf(stderr, "usage: loops KIND MIB CPU[,CPU...]\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(threads, 0, sizeof(threads));
	for (char *word = strtok(argv[3], ","); word && n_threads < MAX_THREADS; word = strtok(NULL, ","))
		threads[n_threads++].cpu = atoi(word);
	if (!n_threads) {
		fprintf(stderr, "loops: no CPU\n");
		return 2;
	}
	run_on(threads[0].cpu);
	prepare(argv[1], (size_t)atoi(argv[2]) << 20, threads, n_threads);
	for (size_t i = 1; i < n_threads; i++)
		if (pthread_create(&id, NULL, run, &threads[i]))
			fail("pthread_create");
	puts("ready");
	fflush(stdout);
	run(&threads[0]);
}
