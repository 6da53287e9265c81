// SPDX-License-Identifier: MIT
/*
 * One bounded step of moving ranges to a node: which pages to submit, and what became of them.
 *
 * An address that is already there, absent or in error ends the kernel's internal batch, so every page is asked for
 * first, and only those present elsewhere are submitted.
 *
 * A transparent huge page is best submitted by its first address alone. Which blocks are huge pages cannot be read
 * without privileges, so it is tried: move the first page of a block whose spread pages are all on one other node, and
 * see whether the spread pages came along. If not, the rest follows as base pages, and the following blocks are not
 * tried until one of them answers like a huge page (its second page, and no other, gives EBUSY and yet has moved).
 *
 * Collecting works by blocks of the size of a transparent huge page and never stops inside one, so no folio is ever
 * seen half by one collection and half, moved in the meantime, by the next. (A folio that lies across two blocks is: with
 * targets that are sources, too, it may go back.)
 *
 * A huge page for which the target has no free one would be split by the kernel. So where the room for them is limited, a
 * block that could be one huge page, whatever its neighbours were, takes of that room before it is submitted, and gives
 * it back if it turns out to be something else; when there is none left, it is not submitted.
 */
#include <errno.h>
#include <linux/mempolicy.h>
#include <stdlib.h>
#include <string.h>

#include "step.h"

#define BATCH_LIMIT (1 << 20)
#define DEFAULT_BLOCK (2u << 20)
#define BLOCK_LIMIT (32u << 20)

static int has_room(const struct step *s, uint64_t pages)
{
	return s->room - s->reserved >= pages;
}

/* Add one address to the collection. */
static void keep(struct step *s, size_t range, void *page, uint64_t weight, int source, int is_head)
{
	s->pages[s->n] = page;
	s->items[s->n++] = (struct item){
		.range = (uint32_t)range,
		.weight = (uint32_t)weight,
		.head = (uint32_t)is_head,
		.source = source,
		.target = target_from(s, source),
	};
	s->weight += weight;
}

/* Count a page that was looked at, and keep it if it is present elsewhere. */
static void sort_out(struct step *s, size_t range, void *page, int status)
{
	struct bal_migration *ret = s->ret;
	uint64_t weight = s->ranges[range].step_bytes / BAL_PAGE_BYTES;
	int target;

	ret->looked += weight;
	if (status == -ENOENT) {
		ret->absent += weight;
		return;
	}
	if (status < 0 || status >= BAL_NODES) {
		ret->other_before += weight;
		ret->before_errno[bal_errno_index(status)] += weight;
		return;
	}
	target = target_from(s, status);
	if (target == status) {
		ret->already_on_target += weight;
	} else if (target < 0) {
		ret->left_alone += weight;
	} else if (weight > 1 && !has_room(s, weight)) {
		ret->no_room += weight;
	} else {
		s->reserved += weight > 1 ? weight : 0;
		keep(s, range, page, weight, status, 0);
	}
}

/* Whether pages next to each other may be (part of) one huge page that is to move: they are all on one other node. */
static int may_be_huge(const struct step *s, size_t range, size_t n, const int *status)
{
	int target = status[0] < 0 || status[0] >= BAL_NODES ? -1 : target_from(s, status[0]);

	if (!s->args->huge_bytes || s->ranges[range].step_bytes != BAL_PAGE_BYTES || target < 0 || target == status[0])
		return 0;
	for (size_t i = 1; i < n; i++)
		if (status[i] != status[0])
			return 0;
	return 1;
}

enum collected { COLLECTED, NOT_COLLECTED, NO_ROOM_YET };

/* Look at the pages in [from, to), count them, and keep those to move. `is_known` not to be huge. Or returns -errno. */
static int collect_pages(struct step *s, size_t range, uint64_t from, uint64_t to, int is_known)
{
	uint64_t step_bytes = s->ranges[range].step_bytes;
	void **pages = s->pages + s->n;
	int *status = s->status + s->n;
	size_t n = 0;
	int rc;

	for (uint64_t a = from; a < to; a += step_bytes)
		pages[n++] = (void *)(uintptr_t)a;
	rc = bal_step_query(s, n, pages, status);
	if (rc)
		return rc;
	if (s->room != UINT64_MAX && !is_known && may_be_huge(s, range, n, status)) {
		if (!has_room(s, block_pages(s))) {
			if (s->reserved)
				return NO_ROOM_YET;
			s->ret->looked += n;
			s->ret->no_room += n;
			return COLLECTED;
		}
		s->reserved += block_pages(s);
	}
	for (size_t i = 0; i < n; i++) /* what is kept overwrites only what was read */
		sort_out(s, range, pages[i], status[i]);
	return COLLECTED;
}

/* Keep the first page of the block, for the whole, if its spread pages are on one other node. Or returns -errno. */
static int collect_head(struct step *s, size_t range, uint64_t block)
{
	void *pages[BAL_SPREAD_LIMIT];
	int status[BAL_SPREAD_LIMIT];
	size_t n = bal_step_spread(s, block, pages);
	int rc = bal_step_query(s, n, pages, status);

	if (rc)
		return rc;
	if (!may_be_huge(s, range, n, status))
		return NOT_COLLECTED;
	s->reserved += block_pages(s);
	keep(s, range, pages[0], block_pages(s), status[0], 1);
	return COLLECTED;
}

/* Collect block by block from the cursor on until the batch is full, enough was looked at, or the ranges end. */
static int collect(struct step *s, struct bal_cursor *cursor)
{
	uint64_t pending = 0; /* pages of heads, looked at but not counted yet */

	while (cursor->range < s->n_ranges) {
		const struct bal_range *r = &s->ranges[cursor->range];
		uint64_t from = cursor->address > r->start ? cursor->address : r->start, to;
		int rc = NOT_COLLECTED;

		if (from >= r->end) {
			*cursor = (struct bal_cursor){ .range = cursor->range + 1 };
			continue;
		}
		if (s->weight >= s->args->batch_pages || s->ret->looked + pending >= s->args->look_pages)
			break;
		to = block_of(s, from) + s->block_bytes;
		if (r->step_bytes >= s->block_bytes)
			to = from + r->step_bytes;
		if (s->args->huge_bytes && !cursor->base && r->step_bytes == BAL_PAGE_BYTES && from == block_of(s, from) &&
		    to <= r->end && has_room(s, block_pages(s))) {
			rc = collect_head(s, cursor->range, from);
			pending += rc == COLLECTED ? block_pages(s) : 0;
		}
		if (rc == NOT_COLLECTED)
			rc = collect_pages(s, cursor->range, from, to < r->end ? to : r->end, 0);
		if (rc < 0)
			return rc;
		if (rc == NO_ROOM_YET)
			break;
		cursor->address = to < r->end ? to : r->end;
	}
	return 0;
}

/* Move what the first pages of blocks did not take along, in the order of the ranges. Returns what finishing does. */
static int submit_rests(struct step *s, struct bal_cursor *cursor)
{
	size_t at = 0, n = s->n_rests;

	while (at < n) {
		struct bal_cursor stop = *cursor;

		for (; at < n && s->weight < s->args->batch_pages; at++)
			if (collect_pages(s, s->rests[at].range, s->rests[at].from, s->rests[at].to, 1) < 0) {
				s->is_blind = 1;
				break;
			}
		if (at < n)
			stop = (struct bal_cursor){ .range = s->rests[at].range, .address = s->rests[at].from, .base = 1 };
		bal_step_submit(s);
		if (bal_step_finish(s, &stop)) {
			*cursor = stop;
			return 1;
		}
	}
	return 0;
}

/* Collect one batch, submit it, and count it. Returns what finishing does. */
static int move_batch(struct step *s, struct bal_cursor *cursor)
{
	int rc;

	s->reserved = 0;
	s->used = 0;
	collect(s, cursor);
	bal_step_submit(s);
	if (bal_step_close_echo(s) && cursor->base)
		cursor->base = 0;
	rc = bal_step_finish(s, cursor);
	if (rc == 0 && s->n_rests) {
		uint64_t split_range = s->rests[s->n_rests - 1].range;

		rc = submit_rests(s, cursor);
		bal_step_close_echo(s);
		if (cursor->range == split_range)
			cursor->base = 1;
	}
	if (s->room != UINT64_MAX)
		s->room -= s->used < s->room ? s->used : s->room;
	return rc;
}

static int is_valid(const struct bal_range *ranges, size_t n_ranges, const struct bal_migrate_args *args,
		    const struct bal_cursor *cursor)
{
	uint64_t huge = args->huge_bytes;

	if (args->batch_pages == 0 || args->batch_pages > BATCH_LIMIT || args->look_pages == 0 || args->step_pages == 0 ||
	    n_ranges > UINT32_MAX || cursor->range > n_ranges || args->n_target_of > BAL_NODES ||
	    (args->flags != MPOL_MF_MOVE && args->flags != MPOL_MF_MOVE_ALL) || (huge & (huge - 1)) ||
	    (huge && (huge < 8 * BAL_PAGE_BYTES || huge > BLOCK_LIMIT)) || (!args->target_of && args->node < 0))
		return 0;
	for (size_t i = 0; args->target_of && i < args->n_target_of; i++)
		if (args->target_of[i] < -1 || args->target_of[i] >= BAL_NODES)
			return 0;
	for (size_t i = 0; i < n_ranges; i++)
		if (!bal_range_is_valid(&ranges[i]))
			return 0;
	return 1;
}

/* Working memory for a batch and a block, which is what a collection may grow to. */
static int allocate(struct step *s)
{
	size_t capacity = s->args->batch_pages + block_pages(s), in_call = 2 * capacity;

	s->pages = malloc(capacity * sizeof(*s->pages));
	s->status = malloc(capacity * sizeof(*s->status));
	s->items = malloc(capacity * sizeof(*s->items));
	s->rests = malloc((s->args->batch_pages / block_pages(s) + 1) * sizeof(*s->rests));
	s->call_pages = malloc(in_call * sizeof(*s->call_pages));
	s->call_nodes = malloc(in_call * sizeof(*s->call_nodes));
	s->call_status = malloc(in_call * sizeof(*s->call_status));
	if (!s->pages || !s->status || !s->items || !s->rests || !s->call_pages || !s->call_nodes || !s->call_status)
		return -ENOMEM;
	if (!s->args->target_of)
		return 0;
	s->sorted_pages = malloc(capacity * sizeof(*s->sorted_pages));
	s->sorted_items = malloc(capacity * sizeof(*s->sorted_items));
	s->order = malloc(capacity * sizeof(*s->order));
	s->sorted_status = malloc(capacity * sizeof(*s->sorted_status));
	return s->sorted_pages && s->sorted_items && s->order && s->sorted_status ? 0 : -ENOMEM;
}

int bal_migrate(int pid, const struct bal_range *ranges, size_t n_ranges, const struct bal_migrate_args *args,
		struct bal_cursor *cursor, struct bal_migration *ret)
{
	struct step s = {
		.pid = pid,
		.ranges = ranges,
		.n_ranges = n_ranges,
		.args = args,
		.ret = ret,
		.block_bytes = args->huge_bytes ? args->huge_bytes : DEFAULT_BLOCK,
		.room = args->large_room,
		.echo_block = UINT64_MAX,
	};
	int rc, stopped;

	memset(ret, 0, sizeof(*ret));
	ret->highest_node = -1;
	ret->error_target = -1;
	if (pid <= 0 || !is_valid(ranges, n_ranges, args, cursor))
		return -EINVAL;
	rc = allocate(&s);
	if (rc == 0) {
		do
			stopped = move_batch(&s, cursor);
		while (!stopped && cursor->range < n_ranges && ret->submitted < args->step_pages &&
		       ret->looked < args->look_pages);
		ret->done = cursor->range >= n_ranges && !ret->error;
	}
	free(s.pages);
	free(s.status);
	free(s.items);
	free(s.rests);
	free(s.sorted_pages);
	free(s.sorted_items);
	free(s.order);
	free(s.sorted_status);
	free(s.call_pages);
	free(s.call_nodes);
	free(s.call_status);
	return rc;
}
