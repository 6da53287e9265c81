// SPDX-License-Identifier: MIT
/*
 * Which node holds pages that are chosen by chance: two in each cell of as many pages each, so that the answers within
 * a cell tell how far the whole may be off, whatever clusters the pages lie in. What follows from it is the caller's
 * affair.
 */
#include <errno.h>
#include <string.h>

#include "core.h"

#define CHUNK 4096 /* even, so that no pair is cut */

/* Which units are asked for, one after another: their numbers ascend from `shift` on and go round once. */
struct walk {
	const struct bal_vma *vmas;
	size_t n_vmas;
	uint32_t strata;
	uint64_t unit_bytes;
	uint64_t total;
	uint64_t shift;
	size_t vma;
	uint64_t before; /* units of the mappings before vma */
};

struct chunk {
	void *pages[CHUNK];
	int status[CHUNK];
	uint32_t vma[CHUNK];
	size_t n;
	int in_pairs;
	int pid;
	uint32_t n_nodes;
	uint64_t *rows;
	size_t row_capacity;
	double longest_seconds;
	struct bal_tally *ret;
};

/* A small generator with good output from any seed: a counter, mixed (Steele, Lea, Flood: SplitMix, 2014). */
static uint64_t chance(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint64_t below(uint64_t limit, uint64_t *state)
{
	return (uint64_t)(((unsigned __int128)chance(state) * limit) >> 64);
}

static int is_asked(const struct walk *w, size_t i)
{
	return w->vmas[i].stratum < BAL_STRATA && w->strata >> w->vmas[i].stratum & 1;
}

static uint64_t units_of(const struct walk *w, size_t i)
{
	return is_asked(w, i) ? (w->vmas[i].end - w->vmas[i].start) / w->unit_bytes : 0;
}

/* The address of a unit, counted from shift on; called with ascending numbers. Leaves its mapping in w->vma. */
static uint64_t find(struct walk *w, uint64_t from_shift)
{
	uint64_t number = w->shift + from_shift, units;

	if (number >= w->total) {
		number -= w->total;
		if (number < w->before) /* round the end: this happens once */
			w->vma = 0, w->before = 0;
	}
	while (number - w->before >= (units = units_of(w, w->vma)))
		w->before += units, w->vma++;
	return w->vmas[w->vma].start + (number - w->before) * w->unit_bytes;
}

static uint64_t *row_of(struct chunk *c, uint32_t vma)
{
	size_t width = c->n_nodes + 3;
	uint64_t *row = c->rows + (c->ret->n_rows ? c->ret->n_rows - 1 : 0) * width;

	if (c->ret->n_rows && row[0] == vma)
		return row;
	if (c->ret->n_rows >= c->row_capacity)
		return NULL;
	row = c->rows + c->ret->n_rows++ * width;
	memset(row, 0, width * sizeof(*row));
	row[0] = vma;
	return row;
}

static void compare(struct chunk *c, int a, int b)
{
	struct bal_tally *ret = c->ret;

	if (a == b)
		return;
	if (a >= 0)
		ret->differ[a]++;
	if (b >= 0)
		ret->differ[b]++;
	if (b < 0)
		ret->alone[a]++;
	else if (a < 0)
		ret->alone[b]++;
}

static int flush(struct chunk *c)
{
	struct bal_tally *ret = c->ret;
	int before = -1, rc = bal_query(c->pid, c->n, c->pages, c->status, &ret->calls, &c->longest_seconds);

	if (rc)
		return rc;
	for (size_t i = 0; i < c->n; i++) {
		int status = c->status[i], node = status >= 0 && (uint32_t)status < c->n_nodes ? status : -1;
		uint64_t *row = row_of(c, c->vma[i]);

		if (!row)
			return -ENOSPC;
		ret->asked++;
		if (node >= 0)
			ret->on_node[node]++, ret->present++;
		row[node >= 0 ? 1 + (uint32_t)node : c->n_nodes + (status == -ENOENT ? 1 : 2)]++;
		if (c->in_pairs && i % 2)
			compare(c, before, node);
		before = node;
	}
	c->n = 0;
	return 0;
}

static int add(struct chunk *c, struct walk *w, uint64_t from_shift)
{
	c->pages[c->n] = (void *)(uintptr_t)find(w, from_shift);
	c->vma[c->n] = (uint32_t)w->vma;
	return ++c->n == CHUNK ? flush(c) : 0;
}

static int ask_all(struct chunk *c, struct walk *w)
{
	for (uint64_t i = 0; i < w->total; i++) {
		int rc = add(c, w, i);

		if (rc)
			return rc;
	}
	return 0;
}

static int ask_pairs(struct chunk *c, struct walk *w, uint64_t cells, uint64_t *state)
{
	w->shift = below(w->total, state);
	for (uint64_t i = 0; i < cells; i++) {
		uint64_t from = (uint64_t)((unsigned __int128)i * w->total / cells);
		uint64_t to = (uint64_t)((unsigned __int128)(i + 1) * w->total / cells);
		uint64_t a = below(to - from, state), b = below(to - from - 1, state);
		int rc;

		b += b >= a; /* another one */
		rc = add(c, w, from + (a < b ? a : b));
		if (!rc)
			rc = add(c, w, from + (a < b ? b : a));
		if (rc)
			return rc;
	}
	return 0;
}

int bal_sample(int pid, const struct bal_vma *vmas, size_t n_vmas, const struct bal_maps *maps, uint32_t strata,
	       uint64_t questions, uint64_t seed, uint32_t n_nodes, uint64_t *rows, size_t row_capacity,
	       struct bal_tally *ret)
{
	struct chunk c = { .pid = pid, .n_nodes = n_nodes, .rows = rows, .row_capacity = row_capacity, .ret = ret };
	struct walk w = { .vmas = vmas, .n_vmas = n_vmas, .strata = strata };
	double began = bal_now_seconds();
	uint64_t state = seed;
	int rc = 0;

	memset(ret, 0, sizeof(*ret));
	if (pid <= 0 || n_nodes > BAL_NODES || n_vmas > UINT32_MAX || strata >> BAL_STRATA)
		return -EINVAL;
	for (int i = 0; i < BAL_STRATA; i++) {
		if (!(strata >> i & 1) || !maps->pages[i])
			continue;
		if (w.unit_bytes && w.unit_bytes != maps->unit_bytes[i])
			return -EINVAL;
		w.unit_bytes = maps->unit_bytes[i];
	}
	if (!w.unit_bytes)
		return 0;
	for (size_t i = 0; i < n_vmas; i++)
		w.total += units_of(&w, i);
	ret->units = w.total;
	if (questions >= w.total) {
		rc = ask_all(&c, &w);
	} else {
		c.in_pairs = 1;
		rc = ask_pairs(&c, &w, questions / 2, &state);
	}
	if (!rc && c.n)
		rc = flush(&c);
	ret->seconds = bal_now_seconds() - began;
	return rc;
}
