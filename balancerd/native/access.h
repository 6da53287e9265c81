/* SPDX-License-Identifier: MIT */
/* The cells in which the accesses of a process are counted: what access.c, judge.c and perf.c share. */
#ifndef BALANCERD_NATIVE_ACCESS_H
#define BALANCERD_NATIVE_ACCESS_H

#include <stddef.h>
#include <stdint.h>

#include "core.h"

#define BAL_PAGE_SHIFT 12
#define BAL_TICK_NS UINT64_C(62500000) /* a sixteenth of a second: 32 bits of them last for eight years of uptime */

struct bal_access_cell {
	uint64_t key;	  /* number of the page + 1; 0: empty */
	uint32_t first;	  /* ticks */
	uint32_t last;
	uint32_t tid;	  /* the only thread, 0: several */
	uint16_t samples; /* stops at its highest */
	uint16_t threads;
	uint16_t weight[]; /* n_slots */
};

static inline struct bal_access_cell *bal_access_cell(const struct bal_access_table *table, uint64_t index)
{
	return (struct bal_access_cell *)((char *)table->cells + index * table->cell_bytes);
}

/* Where to begin to look for a key. Fibonacci hashing twice, so that keys at any regular distance are spread. */
static inline uint64_t bal_access_home(const struct bal_access_table *table, uint64_t key)
{
	uint64_t hash = key * UINT64_C(0x9e3779b97f4a7c15);

	hash = (hash ^ hash >> 32) * UINT64_C(0xd6e8feb86659fd93);
	return (uint64_t)(((unsigned __int128)hash * table->capacity) >> 64);
}

static inline uint64_t bal_access_home_of(const struct bal_access_table *table, uint64_t address)
{
	return bal_access_home(table, (address >> BAL_PAGE_SHIFT) + 1);
}

/* Have the cell at a home, or near it, brought near, which takes a while. */
static inline void bal_access_fetch(const struct bal_access_table *table, uint64_t home)
{
	char *cell = (char *)bal_access_cell(table, home);

	__builtin_prefetch(cell, 1);
	__builtin_prefetch(cell + 64, 1); /* two cells to a cache line, and every second key lies further on */
}

/* Count accesses whose homes are known; see bal_access_add(). Those that were fetched before are counted faster. */
void bal_access_count(const struct bal_access *accesses, const uint64_t *homes, size_t n, int first_is_touch,
		      struct bal_access_table *table);

/* The cell of a key, or NULL. */
struct bal_access_cell *bal_access_find(const struct bal_access_table *table, uint64_t key);

static inline uint32_t bal_access_ticks(uint64_t time_ns)
{
	return (uint32_t)(time_ns / BAL_TICK_NS);
}

#endif
