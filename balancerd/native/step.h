/* SPDX-License-Identifier: MIT */
/* What collecting (migrate.c), submitting (submit.c) and counting (account.c) share: one step of a migration. */
#ifndef BALANCERD_NATIVE_STEP_H
#define BALANCERD_NATIVE_STEP_H

#include "core.h"

#define BAL_SPREAD_LIMIT 16 /* log2 of the pages of the largest block + 2 addresses, and one to spare */

struct item {
	uint32_t range;
	uint32_t weight : 28; /* base pages that move with this address; the whole block's for a head */
	uint32_t head : 1;    /* first page of a block that may be one huge page */
	uint32_t asked : 1;   /* the kernel gave no status: it is known from where the page is now */
	uint32_t refused : 1; /* it is counted as refused */
	uint32_t closes : 1;  /* a separator follows in the call: the kernel's group ends here */
	int32_t source;
	int32_t target;
};

/* The part of a block that its first page did not take along: still to be looked at. */
struct rest {
	uint64_t from;
	uint64_t to;
	size_t range;
};

/* The state of one step, alive during one call of bal_migrate(). */
struct step {
	int pid;
	const struct bal_range *ranges;
	size_t n_ranges;
	const struct bal_migrate_args *args;
	struct bal_migration *ret;
	uint64_t block_bytes;
	/* the collection: n pages present elsewhere, in the order of the ranges */
	size_t n;
	uint64_t weight;
	void **pages;
	int *status;
	struct item *items;
	struct rest *rests;
	size_t n_rests;
	int is_blind; /* a question failed after pages were submitted: what became of some of them is not known */
	/* the collection by target, while it is submitted; only with a map of targets */
	void **sorted_pages;
	struct item *sorted_items;
	uint32_t *order;
	int *sorted_status;
	/* what one call gets: pages of the collection, and separators between them */
	void **call_pages;
	int *call_nodes;
	int *call_status;
	/* base pages that huge pages may still take, what this batch may take of it, and what it did take */
	uint64_t room;
	uint64_t reserved;
	uint64_t used;
	/* the last block whose second page answered EBUSY, and how many of its pages did */
	uint64_t echo_block;
	uint64_t echoes;
};

/*
 * Whether the process has ended, and its pid may be another's by now: a call that waited for a lock of its address space
 * may have taken days.
 */
int bal_step_is_gone(const struct step *s);

/* bal_query() on the step's account; the first error is also kept as the step's. Returns 0 or -errno. */
int bal_step_query(struct step *s, size_t n, void **pages, int *status);

/* Move the collection and leave every item with its final status, or BAL_UNTRIED, BAL_STUCK or BAL_UNWRITTEN. */
void bal_step_submit(struct step *s);

/*
 * Addresses that stand for a block: its pages number 0, 1, 2, 4, 8, ... and the last. Folios are aligned to their size,
 * so when the first one moves, the first of these pages that stays behind tells its size. Returns how many.
 */
size_t bal_step_spread(const struct step *s, uint64_t block, void **pages);

/*
 * Count the collection by final status and empty it. Blocks that were tried whole and are not become s->rests. Returns
 * 1 if the step cannot go on behind it, after an error or because pages were left untried; then *cursor is put at the
 * first page that is not finished, or, if the step is blind, at the beginning of its block, so that the next one sees
 * no folio by half.
 */
int bal_step_finish(struct step *s, struct bal_cursor *cursor);

static inline uint64_t address_of(const struct step *s, size_t i)
{
	return (uint64_t)(uintptr_t)s->pages[i];
}

static inline uint64_t block_of(const struct step *s, uint64_t address)
{
	return address & ~(s->block_bytes - 1);
}

static inline uint64_t block_pages(const struct step *s)
{
	return s->block_bytes / BAL_PAGE_BYTES;
}

/* Where pages on a node go: the node itself if they are there already, below 0 if they are left alone. */
static inline int target_from(const struct step *s, int node)
{
	if (!s->args->target_of)
		return s->args->node;
	return (uint32_t)node < s->args->n_target_of ? s->args->target_of[node] : -1;
}

/*
 * The echo of a huge page that was submitted page by page: its second address, and no other, gave EBUSY. Counts it
 * before the next block can echo. Returns 1 if there was one.
 */
static inline int bal_step_close_echo(struct step *s)
{
	int is_huge = s->echoes == 1;

	if (is_huge)
		s->used += block_pages(s);
	s->echo_block = UINT64_MAX;
	s->echoes = 0;
	return is_huge;
}

#endif
