// SPDX-License-Identifier: MIT
/*
 * Which node the accessed pages of one process belong to, by page and by region of 2 MiB. When such a page or region
 * should move is the caller's affair.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "access.h"

#define REGION_SHIFT 9 /* pages of a region: 512 */
#define REGION_PAGES (1 << REGION_SHIFT)
#define AHEAD 16	/* cells are fetched so many pages before they are looked at */
#define DIGIT_BITS 11
#define DIGITS (1 << DIGIT_BITS)

struct seen {
	uint64_t page;
	uint64_t weight;
	uint64_t best_weight;
	uint32_t weight_of[BAL_ACCESS_SLOTS];
	uint32_t last;
	int8_t best;
	int8_t slot; /* judged to belong there, -1: not judged */
};

struct judging {
	const struct bal_access_table *table;
	const struct bal_access_judge_args *args;
	struct bal_access_judgement *ret;
	struct bal_access_run open;
	struct seen seen[REGION_PAGES];
	uint32_t n_seen;
};

/* Ascending, by digits from the last on; those in which all keys agree are left out. `other` is as large. */
static uint64_t *sort(uint64_t *keys, uint64_t *other, uint64_t n)
{
	uint64_t differing = 0;
	size_t at[DIGITS];

	for (uint64_t i = 1; i < n; i++)
		differing |= keys[i] ^ keys[0];
	for (int shift = 0; shift < 64 && differing >> shift; shift += DIGIT_BITS) {
		uint64_t *sorted = other;
		size_t before = 0;

		if (!(differing >> shift & (DIGITS - 1)))
			continue;
		memset(at, 0, sizeof(at));
		for (uint64_t i = 0; i < n; i++)
			at[keys[i] >> shift & (DIGITS - 1)]++;
		for (int digit = 0; digit < DIGITS; digit++) {
			size_t here = at[digit];

			at[digit] = before;
			before += here;
		}
		for (uint64_t i = 0; i < n; i++)
			sorted[at[keys[i] >> shift & (DIGITS - 1)]++] = keys[i];
		other = keys;
		keys = sorted;
	}
	return keys;
}

/* The one-sided lower bound of a share (Wilson, 1927). */
static double lower_bound(double part, double whole, double z)
{
	double share = part / whole, half = z * z / (2 * whole);

	return (share + half - z * sqrt((share * (1 - share) + half / 2) / whole)) / (1 + 2 * half);
}

static int exceeds(uint64_t part, uint64_t whole, double share, double z)
{
	return whole && lower_bound((double)part / BAL_ACCESS_UNIT, (double)whole / BAL_ACCESS_UNIT, z) > share;
}

static void look(struct judging *j, const struct bal_access_cell *cell, struct seen *seen)
{
	const struct bal_access_rule *rule = &j->args->rule;
	int is_of_one;

	*seen = (struct seen){ .page = cell->key - 1, .last = cell->last, .slot = -1 };
	for (uint32_t i = 0; i < j->table->n_slots; i++) {
		seen->weight_of[i] = cell->weight[i];
		seen->weight += cell->weight[i];
		if (cell->weight[i] > seen->best_weight) {
			seen->best_weight = cell->weight[i];
			seen->best = (int8_t)i;
		}
	}
	is_of_one = seen->weight == seen->best_weight && cell->tid;
	if (seen->weight && ((cell->samples >= rule->sole_samples && is_of_one) ||
			     (cell->samples >= rule->min_samples &&
			      exceeds(seen->best_weight, seen->weight, rule->min_share, rule->z))))
		seen->slot = seen->best;
}

static void write_open(struct judging *j)
{
	struct bal_access_run *open = &j->open;

	if (open->end == open->start)
		return;
	if (j->ret->n_runs < j->args->run_capacity)
		j->args->runs[j->ret->n_runs++] = *open;
	else
		j->ret->missed_runs++;
	open->start = open->end = 0;
}

static void add_to_open(struct judging *j, const struct seen *seen)
{
	struct bal_access_run *open = &j->open;

	open->judged += seen->slot == open->slot;
	open->weight += seen->weight;
	open->node_weight += seen->weight_of[open->slot];
	if (seen->last * BAL_TICK_NS > open->last_ns)
		open->last_ns = seen->last * BAL_TICK_NS;
}

/* Let the open run reach [start, end), or begin another one there. */
static void extend(struct judging *j, uint64_t start, uint64_t end, int slot, int mixed)
{
	struct bal_access_run *open = &j->open;

	if (open->end == open->start || open->end != start || open->slot != slot || open->mixed != mixed) {
		write_open(j);
		*open = (struct bal_access_run){ .start = start, .slot = slot, .mixed = mixed };
	}
	open->end = end;
}

/* Judged pages, and what lies between two of one node if nothing there says otherwise. */
static void write_pages(struct judging *j, int mixed)
{
	uint32_t before = 0; /* the last judged page + 1 */

	for (uint32_t i = 0; i < j->n_seen; i++) {
		const struct seen *seen = &j->seen[i];
		uint64_t start = seen->page << BAL_PAGE_SHIFT;

		if (seen->slot < 0)
			continue;
		if (before && j->seen[before - 1].slot == seen->slot) {
			uint32_t agreeing = before;

			while (agreeing < i && j->seen[agreeing].best == seen->slot)
				agreeing++;
			if (agreeing == i) {
				extend(j, j->open.end, start, seen->slot, mixed);
				for (uint32_t k = before; k < i; k++)
					add_to_open(j, &j->seen[k]);
			}
		}
		extend(j, start, start + BAL_PAGE_BYTES, seen->slot, mixed);
		add_to_open(j, seen);
		before = i + 1;
	}
}

static void write_whole(struct judging *j, uint64_t start, int slot)
{
	extend(j, start, start + ((uint64_t)REGION_PAGES << BAL_PAGE_SHIFT), slot, 0);
	for (uint32_t i = 0; i < j->n_seen; i++)
		add_to_open(j, &j->seen[i]);
}

static void write_region(struct judging *j, const struct bal_access_region *region)
{
	if (j->ret->n_regions < j->args->region_capacity)
		j->args->regions[j->ret->n_regions++] = *region;
	else
		j->ret->missed_regions++;
}

static void finish_region(struct judging *j)
{
	const struct bal_access_rule *rule = &j->args->rule;
	uint32_t judged_for[BAL_ACCESS_SLOTS] = { 0 }, owners = 0, with_samples = 0;
	struct bal_access_region region = { .slot = -1, .pages = j->n_seen };
	uint64_t weight = 0;
	int best = 0;

	if (!j->n_seen)
		return;
	region.start = j->seen[0].page >> REGION_SHIFT << (REGION_SHIFT + BAL_PAGE_SHIFT);
	for (uint32_t i = 0; i < j->n_seen; i++) {
		const struct seen *seen = &j->seen[i];

		for (uint32_t k = 0; k < j->table->n_slots; k++)
			region.weight[k] += seen->weight_of[k];
		weight += seen->weight;
		with_samples += seen->weight > 0;
		if (seen->slot >= 0)
			judged_for[seen->slot]++, region.judged++;
		if (seen->last * BAL_TICK_NS > region.last_ns)
			region.last_ns = seen->last * BAL_TICK_NS;
	}
	for (uint32_t k = 0; k < j->table->n_slots; k++) {
		if (region.weight[k] > region.weight[best])
			best = (int)k;
		owners += judged_for[k] && judged_for[k] >= rule->mixed_share * region.judged;
	}
	region.mixed = owners > 1;
	if (judged_for[best] == region.judged && with_samples >= rule->region_pages &&
	    weight >= (uint64_t)rule->min_samples * BAL_ACCESS_UNIT &&
	    exceeds(region.weight[best], weight, rule->region_share, rule->z)) {
		region.slot = best;
		write_whole(j, region.start, best);
	} else {
		write_pages(j, region.mixed);
	}
	write_region(j, &region);
	j->ret->judged += region.judged;
	j->ret->mixed_regions += (uint64_t)region.mixed;
	j->n_seen = 0;
}

int bal_access_judge(const struct bal_access_table *table, const struct bal_access_judge_args *args,
		     struct bal_access_judgement *ret)
{
	struct judging j = { .table = table, .args = args, .ret = ret };
	uint32_t since = bal_access_ticks(args->since_ns);
	double began = bal_now_seconds();
	uint64_t *keys = args->scratch, n = 0;

	memset(ret, 0, sizeof(*ret));
	if (!args->rule.min_samples || !args->rule.sole_samples || !(args->rule.z >= 0))
		return -EINVAL;
	for (uint64_t i = 0; i < table->capacity; i++) {
		const struct bal_access_cell *cell = bal_access_cell(table, i);

		if (cell->key && cell->last >= since)
			keys[n++] = cell->key;
	}
	keys = sort(keys, args->scratch + table->pages, n);
	for (uint64_t i = 0; i < n; i++) {
		if (i + AHEAD < n)
			__builtin_prefetch(bal_access_cell(table, bal_access_home(table, keys[i + AHEAD])));
		if (j.n_seen && (keys[i] - 1) >> REGION_SHIFT != j.seen[0].page >> REGION_SHIFT)
			finish_region(&j);
		look(&j, bal_access_find(table, keys[i]), &j.seen[j.n_seen++]);
	}
	finish_region(&j);
	write_open(&j);
	ret->pages = n;
	ret->seconds = bal_now_seconds() - began;
	return 0;
}
