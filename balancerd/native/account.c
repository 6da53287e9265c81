// SPDX-License-Identifier: MIT
/*
 * Counting what became of a collection, page by page: the sums, the runs of neighbours that fared alike, and the blocks
 * that were tried whole.
 *
 * The kernel splits a huge page for which the target has no room, and may move some of its pages before it gives up: the
 * last one first (mm/migrate.c, try_split_thp). So the pages of a block whose first address failed are asked for.
 */
#include <errno.h>
#include <string.h>

#include "step.h"

size_t bal_step_spread(const struct step *s, uint64_t block, void **pages)
{
	size_t n = 1;

	pages[0] = (void *)(uintptr_t)block;
	for (uint64_t offset = BAL_PAGE_BYTES; offset < s->block_bytes; offset *= 2)
		pages[n++] = (void *)(uintptr_t)(block + offset);
	pages[n++] = (void *)(uintptr_t)(block + s->block_bytes - BAL_PAGE_BYTES);
	return n;
}

/* Add pages to the last run if they continue it, or begin another. */
static void record(struct step *s, const struct item *item, uint64_t from, uint64_t pages, int error)
{
	struct bal_migration *ret = s->ret;
	uint64_t to = from + pages * BAL_PAGE_BYTES, page_bytes = s->ranges[item->range].step_bytes;

	if (ret->n_runs) {
		struct bal_run *last = &s->args->runs[ret->n_runs - 1];

		if (last->end == from && last->source == item->source && last->target == item->target &&
		    last->error == error && last->page_bytes == page_bytes) {
			last->end = to;
			return;
		}
	}
	if (ret->n_runs >= s->args->run_capacity) {
		ret->unrecorded += pages;
		return;
	}
	s->args->runs[ret->n_runs++] = (struct bal_run){
		.start = from,
		.end = to,
		.page_bytes = page_bytes,
		.source = item->source,
		.target = item->target,
		.error = error,
	};
}

/* Count so many base pages from an address on, submitted with an item, by their final status. */
static void tally(struct step *s, const struct item *item, uint64_t from, uint64_t pages, int status)
{
	struct bal_migration *ret = s->ret;

	ret->submitted += pages;
	if (status == item->target) {
		ret->moved += pages;
		ret->from_node[item->source] += pages;
		if (item->source > ret->highest_node)
			ret->highest_node = item->source;
		record(s, item, from, pages, 0);
	} else if (status == BAL_UNTRIED) {
		ret->not_attempted += pages;
	} else if (status == BAL_UNWRITTEN || status >= 0) {
		ret->unwritten += pages;
		record(s, item, from, pages, -1);
	} else {
		if (status == BAL_STUCK) {
			ret->stuck += pages;
			status = -EBUSY;
		}
		ret->by_errno[bal_errno_index(status)] += pages;
		record(s, item, from, pages, -status);
	}
}

/*
 * Count a large folio at the start of a block, of which some pages are on the target and others are not, each by where
 * it is. Returns the first page that is not finished.
 */
static uint64_t finish_split_folio(struct step *s, size_t i, uint64_t folio_bytes)
{
	enum { GATHER = 256 };
	const struct item *item = &s->items[i];
	uint64_t block = address_of(s, i), end = block + folio_bytes, unfinished = end, on_target = 0;
	int others = s->ret->error || s->status[i] == BAL_UNTRIED ? BAL_UNTRIED : -EBUSY;
	void *pages[GATHER];
	int now[GATHER];

	for (uint64_t at = block; at < end;) {
		size_t n = 0;
		int rc;

		for (; n < GATHER && at < end; at += BAL_PAGE_BYTES)
			pages[n++] = (void *)(uintptr_t)at;
		rc = bal_step_query(s, n, pages, now);
		s->is_blind |= rc != 0;
		for (size_t k = 0; k < n; k++) {
			uint64_t address = (uint64_t)(uintptr_t)pages[k];
			int status = address == block ? s->status[i] : rc ? BAL_UNTRIED : others;

			if (rc == 0 && now[k] == item->target) {
				s->ret->refused -= address == block && item->refused; /* somebody has moved it since */
				status = item->target;
				on_target++;
			} else if (address != block && status == -EBUSY) {
				s->ret->refused++;
			}
			if (status == BAL_UNTRIED && unfinished == end)
				unfinished = address;
			tally(s, item, address, 1, status);
		}
	}
	s->ret->looked += folio_bytes / BAL_PAGE_BYTES;
	if (on_target == block_pages(s)) {
		s->ret->whole_folios++;
		s->used += block_pages(s);
	}
	return unfinished;
}

/* Count a block of which nobody says how much its first page took along. It is not finished: it is to be seen again. */
static uint64_t finish_unseen_block(struct step *s, size_t i)
{
	const struct item *item = &s->items[i];
	uint64_t block = address_of(s, i);

	s->is_blind = 1;
	s->ret->looked += block_pages(s);
	tally(s, item, block, 1, s->status[i]);
	tally(s, item, block + BAL_PAGE_BYTES, block_pages(s) - 1,
	      s->status[i] == BAL_UNTRIED ? BAL_UNTRIED : BAL_UNWRITTEN);
	return block;
}

/* Count a block that was submitted by its first address. Returns its first page that is not finished. */
static uint64_t finish_block(struct step *s, size_t i)
{
	void *pages[BAL_SPREAD_LIMIT];
	int now[BAL_SPREAD_LIMIT];
	const struct item *item = &s->items[i];
	uint64_t block = address_of(s, i), taken = 1;
	size_t n = bal_step_spread(s, block, pages), along = 0, last = 0;

	if (s->is_blind || bal_step_query(s, n, pages, now))
		return finish_unseen_block(s, i);
	while (along < n && now[along] == item->target)
		along++;
	for (size_t k = 1; k < n; k++)
		if (now[k] == item->target)
			last = k;
	if (last && (item->asked || last >= along)) {
		uint64_t folio_bytes = 2 * BAL_PAGE_BYTES;

		while (block + folio_bytes <= (uint64_t)(uintptr_t)pages[last])
			folio_bytes *= 2;
		return finish_split_folio(s, i, folio_bytes);
	}
	if (along == n)
		taken = block_pages(s);
	else if (along)
		taken = ((uint64_t)(uintptr_t)pages[along] - block) / BAL_PAGE_BYTES;
	if (s->status[i] != item->target)
		taken = 1;
	if (taken == block_pages(s)) {
		s->ret->whole_folios++;
		s->used += taken;
	}
	s->ret->looked += taken;
	tally(s, item, block, taken, s->status[i]);
	return s->status[i] == BAL_UNTRIED ? block : block + taken * BAL_PAGE_BYTES;
}

/* Put the cursor at the beginning of its block, or of its range. */
static void go_back(const struct step *s, struct bal_cursor *cursor)
{
	const struct bal_range *r = &s->ranges[cursor->range];

	if (cursor->range >= s->n_ranges || cursor->address <= r->start || cursor->address >= r->end)
		return;
	cursor->address = block_of(s, cursor->address) > r->start ? block_of(s, cursor->address) : r->start;
}

int bal_step_finish(struct step *s, struct bal_cursor *cursor)
{
	struct bal_cursor unfinished = *cursor;
	int all_finished = 1, all_tried = 1;

	s->n_rests = 0;
	for (size_t i = 0; i < s->n; i++) {
		const struct item *item = &s->items[i];
		uint64_t from = address_of(s, i), to = from + (uint64_t)item->weight * BAL_PAGE_BYTES;
		int is_untried = s->status[i] == BAL_UNTRIED;

		if (item->head) {
			from = finish_block(s, i);
		} else {
			tally(s, item, from, item->weight, s->status[i]);
			if (item->weight > 1 && s->status[i] == item->target)
				s->used += item->weight;
			from = is_untried ? from : to;
		}
		if (all_finished && from < to) {
			unfinished.range = item->range;
			unfinished.address = from;
			all_finished = 0;
		}
		all_tried &= !is_untried;
		if (item->head && from < to)
			s->rests[s->n_rests++] = (struct rest){ .range = item->range, .from = from, .to = to };
	}
	s->n = 0;
	s->weight = 0;
	if (!s->ret->error && all_tried)
		return 0;
	*cursor = unfinished;
	if (s->is_blind)
		go_back(s, cursor);
	return 1;
}
