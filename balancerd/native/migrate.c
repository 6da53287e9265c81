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
 * seen half by one collection and half, moved in the meantime, by the next.
 */
#include <errno.h>
#include <linux/mempolicy.h>
#include <stdlib.h>
#include <string.h>

#include "step.h"

#define BATCH_LIMIT (1 << 20)
#define DEFAULT_BLOCK (2u << 20)
#define BLOCK_LIMIT (32u << 20)
#define SPREAD_LIMIT 16 /* log2(BLOCK_LIMIT / BAL_PAGE_BYTES) + 2 addresses, and one to spare */

/*
 * Addresses that stand for a block: its pages number 0, 1, 2, 4, 8, ... and the last. Folios are aligned to their size,
 * so when the first one moves, the first of these pages that stays behind tells its size. Returns how many.
 */
static size_t spread(const struct step *s, uint64_t block, void **pages)
{
	size_t n = 1;

	pages[0] = (void *)(uintptr_t)block;
	for (uint64_t offset = BAL_PAGE_BYTES; offset < s->block_bytes; offset *= 2)
		pages[n++] = (void *)(uintptr_t)(block + offset);
	pages[n++] = (void *)(uintptr_t)(block + s->block_bytes - BAL_PAGE_BYTES);
	return n;
}

/* Look at the pages in [from, to), count them, and keep those that are present elsewhere. */
static int collect_pages(struct step *s, size_t range, uint64_t from, uint64_t to)
{
	struct bal_migration *ret = s->ret;
	uint64_t step_bytes = s->ranges[range].step_bytes;
	uint32_t weight = (uint32_t)(step_bytes / BAL_PAGE_BYTES);
	size_t first = s->n, k = 0;
	int rc;

	for (uint64_t a = from; a < to; a += step_bytes)
		s->pages[first + k++] = (void *)(uintptr_t)a;
	rc = bal_step_query(s, k, s->pages + first, s->status + first);
	if (rc)
		return rc;
	for (size_t i = first; i < first + k; i++) {
		int status = s->status[i];

		ret->looked += weight;
		if (status == s->args->node) {
			ret->already_on_target += weight;
		} else if (status == -ENOENT) {
			ret->absent += weight;
		} else if (status < 0 || status >= BAL_NODES) {
			ret->other_before += weight;
		} else {
			s->pages[s->n] = s->pages[i];
			s->items[s->n] = (struct item){ .range = (uint32_t)range, .weight = weight, .source = status };
			s->weight += weight;
			s->n++;
		}
	}
	return 0;
}

/* Keep the first page of the block, for the whole, if its spread pages are on one other node. Returns 1 if so. */
static int collect_head(struct step *s, size_t range, uint64_t block)
{
	void *pages[SPREAD_LIMIT];
	int status[SPREAD_LIMIT];
	size_t n = spread(s, block, pages);
	int rc = bal_step_query(s, n, pages, status);

	if (rc)
		return rc;
	if (status[0] < 0 || status[0] >= BAL_NODES || status[0] == s->args->node)
		return 0;
	for (size_t i = 1; i < n; i++)
		if (status[i] != status[0])
			return 0;
	s->pages[s->n] = pages[0];
	s->items[s->n] = (struct item){
		.range = (uint32_t)range,
		.weight = (uint32_t)(s->block_bytes / BAL_PAGE_BYTES),
		.head = 1,
		.source = status[0],
	};
	s->weight += s->items[s->n].weight;
	s->n++;
	return 1;
}

/* Collect block by block from the cursor on until the batch is full, enough was looked at, or the ranges end. */
static int collect(struct step *s, struct bal_cursor *cursor)
{
	uint64_t pending = 0; /* pages of heads, looked at but not counted yet */

	while (cursor->range < s->n_ranges) {
		const struct bal_range *r = &s->ranges[cursor->range];
		uint64_t from = cursor->address > r->start ? cursor->address : r->start, to;
		int rc = 0;

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
		    to <= r->end) {
			rc = collect_head(s, cursor->range, from);
			pending += rc > 0 ? s->block_bytes / BAL_PAGE_BYTES : 0;
		}
		if (rc == 0)
			rc = collect_pages(s, cursor->range, from, to < r->end ? to : r->end);
		if (rc < 0)
			return rc;
		cursor->address = to < r->end ? to : r->end;
	}
	return 0;
}

/* How many base pages of a block its first page took to the target, itself included: the size of its folio. */
static uint32_t pages_taken_along(struct step *s, uint64_t block)
{
	void *pages[SPREAD_LIMIT];
	int status[SPREAD_LIMIT];
	size_t n = spread(s, block, pages), i;
	uint32_t taken = 1;

	if (bal_step_query(s, n, pages, status))
		return 1;
	for (i = 1; i + 1 < n && status[i] == s->args->node; i++)
		taken *= 2;
	return i + 1 == n && status[i] != s->args->node ? taken / 2 : taken;
}

static void tally(struct step *s, size_t i)
{
	struct bal_migration *ret = s->ret;
	const struct item *item = &s->items[i];
	int status = s->status[i];

	ret->submitted += item->weight;
	if (status == s->args->node) {
		ret->moved += item->weight;
		ret->from_node[item->source] += item->weight;
		if (item->source > ret->highest_node)
			ret->highest_node = item->source;
	} else if (status == BAL_UNTRIED || status == BAL_STUCK) {
		ret->not_attempted += item->weight;
	} else if (status == BAL_UNWRITTEN || status >= 0) {
		ret->unwritten += item->weight;
	} else {
		ret->by_errno[bal_errno_index(status)] += item->weight;
	}
}

/*
 * Count the collection by final status and empty it. Blocks that were tried whole and are not become s->rests. Returns
 * 1 if the step cannot go on behind it, after an error or because pages were left untried; then *cursor is put at the
 * first page that is not finished.
 */
static int finish(struct step *s, struct bal_cursor *cursor)
{
	struct bal_migration *ret = s->ret;
	struct bal_cursor unfinished = *cursor;
	int all_finished = 1, all_tried = 1;

	s->n_rests = 0;
	for (size_t i = 0; i < s->n; i++) {
		struct item *item = &s->items[i];
		uint64_t from = address_of(s, i), to = from + s->block_bytes;
		int is_untried = s->status[i] == BAL_UNTRIED, is_split = 0;

		if (item->head) {
			item->weight = s->status[i] == s->args->node ? pages_taken_along(s, from) : 1;
			is_split = (uint64_t)item->weight * BAL_PAGE_BYTES < s->block_bytes;
			ret->whole_folios += (uint64_t)!is_split;
			ret->looked += item->weight;
		}
		tally(s, i);
		if (!is_untried)
			from += (uint64_t)item->weight * BAL_PAGE_BYTES;
		if (all_finished && (is_split || is_untried)) {
			unfinished.range = item->range;
			unfinished.address = from;
			all_finished = 0;
		}
		all_tried &= !is_untried;
		if (is_split)
			s->rests[s->n_rests++] = (struct rest){ .range = item->range, .from = from, .to = to };
	}
	s->n = 0;
	s->weight = 0;
	if (!ret->error && all_tried)
		return 0;
	*cursor = unfinished;
	return 1;
}

/* Move what the first pages of blocks did not take along, in the order of the ranges. Returns what finish() does. */
static int submit_rests(struct step *s, struct bal_cursor *cursor)
{
	size_t at = 0, n = s->n_rests;

	while (at < n) {
		struct bal_cursor stop = *cursor;

		for (; at < n && s->weight < s->args->batch_pages; at++)
			if (collect_pages(s, s->rests[at].range, s->rests[at].from, s->rests[at].to))
				break;
		if (at < n)
			stop = (struct bal_cursor){ .range = s->rests[at].range, .address = s->rests[at].from, .base = 1 };
		bal_step_submit(s);
		if (finish(s, &stop)) {
			*cursor = stop;
			return 1;
		}
	}
	return 0;
}

/* Collect one batch, submit it, and count it. Returns what finish() does. */
static int move_batch(struct step *s, struct bal_cursor *cursor)
{
	uint64_t split_range;
	int rc;

	s->echo_block = UINT64_MAX;
	s->echoes = 0;
	collect(s, cursor);
	bal_step_submit(s);
	if (s->echoes == 1 && cursor->base)
		cursor->base = 0;
	rc = finish(s, cursor);
	if (rc || !s->n_rests)
		return rc;
	split_range = s->rests[s->n_rests - 1].range;
	rc = submit_rests(s, cursor);
	if (cursor->range == split_range)
		cursor->base = 1;
	return rc;
}

int bal_migrate(int pid, const struct bal_range *ranges, size_t n_ranges, const struct bal_migrate_args *args,
		struct bal_cursor *cursor, struct bal_migration *ret)
{
	uint64_t huge = args->huge_bytes;
	struct step s = {
		.pid = pid,
		.ranges = ranges,
		.n_ranges = n_ranges,
		.args = args,
		.ret = ret,
		.block_bytes = huge ? huge : DEFAULT_BLOCK,
	};
	size_t capacity;
	int rc = -ENOMEM, stopped;

	memset(ret, 0, sizeof(*ret));
	ret->highest_node = -1;
	if (pid <= 0 || args->node < 0 || args->batch_pages == 0 || args->batch_pages > BATCH_LIMIT ||
	    args->look_pages == 0 || args->step_pages == 0 || n_ranges > UINT32_MAX || cursor->range > n_ranges ||
	    (args->flags != MPOL_MF_MOVE && args->flags != MPOL_MF_MOVE_ALL) || (huge & (huge - 1)) ||
	    (huge && (huge < 8 * BAL_PAGE_BYTES || huge > BLOCK_LIMIT)))
		return -EINVAL;
	for (size_t i = 0; i < n_ranges; i++)
		if (!bal_range_is_valid(&ranges[i]))
			return -EINVAL;
	capacity = args->batch_pages + s.block_bytes / BAL_PAGE_BYTES;
	s.pages = malloc(capacity * sizeof(*s.pages));
	s.nodes = malloc(capacity * sizeof(*s.nodes));
	s.status = malloc(capacity * sizeof(*s.status));
	s.items = malloc(capacity * sizeof(*s.items));
	s.rests = malloc((args->batch_pages / (s.block_bytes / BAL_PAGE_BYTES) + 1) * sizeof(*s.rests));
	if (s.pages && s.nodes && s.status && s.items && s.rests) {
		do
			stopped = move_batch(&s, cursor);
		while (!stopped && cursor->range < n_ranges && ret->submitted < args->step_pages &&
		       ret->looked < args->look_pages);
		ret->done = cursor->range >= n_ranges && !ret->error;
		rc = 0;
	}
	free(s.pages);
	free(s.nodes);
	free(s.status);
	free(s.items);
	free(s.rests);
	return rc;
}
