/* SPDX-License-Identifier: MIT */
/* What collecting (migrate.c) and submitting (submit.c) share: one step of a migration. */
#ifndef BALANCERD_NATIVE_STEP_H
#define BALANCERD_NATIVE_STEP_H

#include "core.h"

struct item {
	uint32_t range;
	uint32_t weight : 31; /* base pages that move with this address */
	uint32_t head : 1;    /* first page of a block that may be one huge page; its weight then is the whole block's */
	int32_t source;
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
	int *nodes;
	int *status;
	struct item *items;
	struct rest *rests;
	size_t n_rests;
	/* the last block whose second page answered EBUSY, and how many of its pages did */
	uint64_t echo_block;
	uint64_t echoes;
};

/* bal_query() on the step's account; an error is also kept as the step's. Returns 0 or -errno. */
int bal_step_query(struct step *s, size_t n, void **pages, int *status);

/* Move the collection and leave every item with its final status, or BAL_UNTRIED, BAL_STUCK or BAL_UNWRITTEN. */
void bal_step_submit(struct step *s);

static inline uint64_t address_of(const struct step *s, size_t i)
{
	return (uint64_t)(uintptr_t)s->pages[i];
}

static inline uint64_t block_of(const struct step *s, uint64_t address)
{
	return address & ~(s->block_bytes - 1);
}

#endif
