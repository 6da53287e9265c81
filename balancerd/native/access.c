// SPDX-License-Identifier: MIT
/*
 * Counting the accesses of one process by page and node, in memory of the caller: open addressing with linear probing.
 * Where the accesses come from, and what follows from them, is the caller's affair.
 */
#include <errno.h>
#include <string.h>

#include "access.h"

#define WINDOW 512    /* cells from its home in which a key may lie; a table at its limit has hardly any that far */
#define CANDIDATES 16 /* cells of which one is given up when there is no room */
#define NEW_TICKS 256 /* sixteen seconds */
#define AHEAD 32      /* cells are fetched so many accesses before they are counted, as memory is slow */
#define CHUNK 256
#define DECAY_16 64225 /* 0.98 in 65536ths */

static struct bal_access_cell *next(const struct bal_access_table *table, struct bal_access_cell *cell)
{
	char *after = (char *)cell + table->cell_bytes;

	return (struct bal_access_cell *)(after == (char *)table->cells + table->capacity * table->cell_bytes ?
						  table->cells : after);
}

/* The cell of the key, or else the empty one where it would be, or else NULL. */
static struct bal_access_cell *probe(const struct bal_access_table *table, uint64_t key, uint64_t home)
{
	uint64_t at = home;

	for (int i = 0; i < WINDOW; i++) {
		struct bal_access_cell *cell = bal_access_cell(table, at);

		if (cell->key == key || !cell->key)
			return cell;
		if (++at == table->capacity)
			at = 0;
	}
	return NULL;
}

struct bal_access_cell *bal_access_find(const struct bal_access_table *table, uint64_t key)
{
	struct bal_access_cell *cell = probe(table, key, bal_access_home(table, key));

	return cell && cell->key ? cell : NULL;
}

/* Fewer samples for the time since it was first seen. What has just come counts as old enough to be judged by that. */
static int is_colder(const struct bal_access_cell *a, const struct bal_access_cell *b, uint32_t now)
{
	uint64_t age_a = (uint64_t)(now > a->first ? now - a->first : 0) + NEW_TICKS;
	uint64_t age_b = (uint64_t)(now > b->first ? now - b->first : 0) + NEW_TICKS;

	return a->samples * age_b < b->samples * age_a;
}

static uint64_t home_of(const struct bal_access_table *table, const struct bal_access_cell *cell)
{
	return bal_access_home(table, cell->key);
}

static uint64_t index_of(const struct bal_access_table *table, const struct bal_access_cell *cell)
{
	return (uint64_t)((const char *)cell - (const char *)table->cells) / table->cell_bytes;
}

static uint64_t distance(const struct bal_access_table *table, uint64_t from, uint64_t to)
{
	return to >= from ? to - from : to + table->capacity - from;
}

/* Empty a cell; cells behind it move up where they may, so that none is cut off from its home (Knuth, 6.4, R). */
static void erase(struct bal_access_table *table, struct bal_access_cell *hole)
{
	struct bal_access_cell *cell = hole;

	for (uint64_t i = 1; i < table->capacity; i++) {
		cell = next(table, cell);
		if (!cell->key)
			break;
		if (distance(table, home_of(table, cell), index_of(table, cell)) <
		    distance(table, index_of(table, hole), index_of(table, cell)))
			continue;
		memcpy(hole, cell, table->cell_bytes);
		hole = cell;
	}
	hole->key = 0;
	table->pages--;
}

/* A cell for a new key, whose place would be `cell` (NULL: too far from home), at the cost of a page seen seldom. */
static struct bal_access_cell *make_room(struct bal_access_table *table, struct bal_access_cell *cell, uint64_t key,
					 uint64_t home, uint32_t now)
{
	struct bal_access_cell *at = bal_access_cell(table, home), *coldest = NULL;

	for (int i = 0; i < CANDIDATES; i++, at = next(table, at))
		if (at->key && (!coldest || is_colder(at, coldest, now)))
			coldest = at;
	if (!coldest)
		return cell; /* nobody near: one more will do no harm */
	table->lost_pages++;
	table->lost_samples += coldest->samples;
	if (cell) {
		erase(table, coldest);
		return probe(table, key, home); /* not further than it was */
	}
	table->pages--;
	return coldest; /* no cell between home and here is empty, so the key is found here, and others as before */
}

static struct bal_access_cell *enter(struct bal_access_table *table, struct bal_access_cell *cell, uint64_t key,
				     uint64_t home, uint32_t now)
{
	if (!cell || table->pages >= table->limit)
		cell = make_room(table, cell, key, home, now);
	if (!cell) /* where no cell near home is empty, one of them was given up */
		__builtin_unreachable();
	memset(cell, 0, table->cell_bytes);
	cell->key = key;
	cell->first = cell->last = now;
	table->pages++;
	return cell;
}

/* Lets all weights fall, four at a time: a lane of 16 bits times a factor below 2^16 stays within 32 bits. */
static void decay(const struct bal_access_table *table, struct bal_access_cell *cell)
{
	const uint64_t even = UINT64_C(0x0000ffff0000ffff);

	for (uint32_t i = 0; i < table->n_slots; i += 4) {
		uint64_t four;

		memcpy(&four, &cell->weight[i], sizeof(four));
		four = ((four & even) * DECAY_16 >> 16 & even) | ((four >> 16 & even) * DECAY_16 & ~even);
		memcpy(&cell->weight[i], &four, sizeof(four));
	}
}

static void count(struct bal_access_table *table, const struct bal_access *access, uint64_t home, int slot,
		  int first_is_touch)
{
	uint64_t key = (access->address >> BAL_PAGE_SHIFT) + 1;
	struct bal_access_cell *cell = probe(table, key, home);
	uint32_t now = bal_access_ticks(access->time_ns);

	if (!cell || !cell->key) {
		cell = enter(table, cell, key, home, now);
		if (first_is_touch) {
			table->touches++;
			return;
		}
	}
	table->counted++;
	if (now > cell->last)
		cell->last = now;
	if (!cell->samples)
		cell->tid = access->tid;
	else if (cell->tid != access->tid)
		cell->tid = 0;
	cell->threads |= (uint16_t)(1 << (access->tid * UINT32_C(0x9e3779b9) >> 28));
	cell->samples += cell->samples < UINT16_MAX;
	decay(table, cell);
	cell->weight[slot] += BAL_ACCESS_UNIT;
}

void bal_access_count(const struct bal_access *accesses, const uint64_t *homes, size_t n, int first_is_touch,
		      struct bal_access_table *table)
{
	for (size_t i = 0; i < n && i < AHEAD; i++)
		bal_access_fetch(table, homes[i]);
	for (size_t i = 0; i < n; i++) {
		const struct bal_access *access = &accesses[i];
		int slot = access->cpu < table->n_cpus ? table->slot_of_cpu[access->cpu] : -1;

		if (i + AHEAD < n)
			bal_access_fetch(table, homes[i + AHEAD]);
		table->taken++;
		if ((uint32_t)slot >= table->n_slots)
			table->unknown_cpus++;
		else
			count(table, access, homes[i], slot, first_is_touch);
	}
}

int bal_access_add(const struct bal_access *accesses, size_t n, int first_is_touch, struct bal_access_table *table)
{
	uint64_t homes[CHUNK];

	for (size_t begin = 0; begin < n; begin += CHUNK) {
		size_t here = n - begin < CHUNK ? n - begin : CHUNK;

		for (size_t i = 0; i < here; i++)
			homes[i] = bal_access_home_of(table, accesses[begin + i].address);
		bal_access_count(&accesses[begin], homes, here, first_is_touch, table);
	}
	return 0;
}

int bal_access_start(void *memory, uint64_t bytes, uint32_t n_slots, const int8_t *slot_of_cpu, uint32_t n_cpus,
		     struct bal_access_table *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (!n_slots || n_slots > BAL_ACCESS_SLOTS || (uintptr_t)memory % sizeof(uint64_t))
		return -EINVAL;
	ret->cells = memory;
	ret->slot_of_cpu = slot_of_cpu;
	ret->n_cpus = n_cpus;
	ret->n_slots = n_slots;
	ret->cell_bytes = (uint32_t)sizeof(struct bal_access_cell) + (n_slots + 3) / 4 * 4 * (uint32_t)sizeof(uint16_t);
	ret->capacity = bytes / ret->cell_bytes;
	ret->limit = ret->capacity - (ret->capacity + 3) / 4; /* never full: erase() goes on to an empty cell */
	return ret->capacity ? 0 : -EINVAL;
}

int bal_access_look(const struct bal_access_table *table, uint64_t address, struct bal_access_page *ret)
{
	const struct bal_access_cell *cell = bal_access_find(table, (address >> BAL_PAGE_SHIFT) + 1);

	memset(ret, 0, sizeof(*ret));
	if (!cell)
		return -ENOENT;
	ret->first_ns = cell->first * BAL_TICK_NS;
	ret->last_ns = cell->last * BAL_TICK_NS;
	ret->tid = cell->tid;
	ret->samples = cell->samples;
	ret->threads = cell->threads;
	for (uint32_t i = 0; i < table->n_slots; i++)
		ret->weight[i] = cell->weight[i];
	return 0;
}

int bal_access_forget(struct bal_access_table *table, uint64_t before_ns, uint64_t *ret)
{
	uint32_t before = bal_access_ticks(before_ns);

	*ret = 0;
	for (uint64_t i = 0; i < table->capacity; i++) {
		struct bal_access_cell *cell = bal_access_cell(table, i);

		while (cell->key && cell->last < before) { /* another one may have moved up to here */
			erase(table, cell);
			++*ret;
		}
	}
	return 0;
}
