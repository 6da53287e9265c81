// SPDX-License-Identifier: MIT
/*
 * Submitting a collection of pages to move_pages(2) until every page has a final status.
 *
 * A positive return leaves statuses unwritten and the tail of the pages untried: the tail is submitted again, and pages
 * without a status are asked for again. Nothing is counted by the return value, whose meaning has changed between
 * releases. A second address inside one large folio gets EBUSY, since the first took the folio along: a page with EBUSY
 * that is on the target afterwards has moved. A page with another target ends the kernel's internal batch, so they are
 * submitted by target. Which pages to submit is not decided here.
 *
 * The kernel unmaps up to 512 pages together, clears as many new ones, and then copies: who touches one of them waits
 * for all, and what was cleared has left the caches. A call of few pages would be gentle, but each call has its price
 * (see idle.c). So there are separators in a call, addresses that nobody can have: each ends the internal batch, too.
 */
#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "step.h"

#define MAX_RESUBMISSIONS 10
#define SEPARATOR ((void *)-(intptr_t)BAL_PAGE_BYTES) /* the last page of all: no process can map it */

int bal_step_is_gone(const struct step *s)
{
	struct pollfd ended = { .fd = s->args->pidfd, .events = POLLIN };

	return s->args->pidfd > 0 && poll(&ended, 1, 0) != 0;
}

int bal_step_query(struct step *s, size_t n, void **pages, int *status)
{
	double unused = 0, began = bal_now_seconds();
	int rc = bal_step_is_gone(s) ? -ESRCH : bal_query(s->pid, n, pages, status, &s->ret->query_calls, &unused);

	s->ret->query_seconds += bal_now_seconds() - began;
	if (rc && !s->ret->error) /* the first one tells more than that of asking again */
		s->ret->error = -rc;
	return rc;
}

/*
 * Behind which page the kernel stopped after a positive return. It stores no status for the group that failed, nor for
 * anything behind it, but for the page that ended the group, if that one had an error of its own. A page that ended the
 * group by its other target was not looked at, nor is anything behind a separator. Without any of these, the failing
 * group was the last one and all were tried.
 */
static size_t end_of_tried(const struct step *s, size_t first, size_t end)
{
	size_t group = first;

	while (group < end && s->status[group] != BAL_UNWRITTEN)
		group++;
	for (size_t i = group + 1; i < end; i++) {
		if (s->status[i] != BAL_UNWRITTEN)
			return i + 1;
		if (s->items[i].target != s->items[group].target || s->items[i - 1].closes)
			return i;
	}
	return end;
}

/*
 * A failing group of one page, ended by the EBUSY of its neighbour, is a large folio that cannot move. Each further
 * address of it would fail as slowly, so the rest of the block is skipped.
 */
static size_t skip_stuck_folio(struct step *s, size_t tried, size_t end)
{
	uint64_t block;

	if (tried < 2 || s->status[tried - 1] != -EBUSY || s->status[tried - 2] != BAL_UNWRITTEN ||
	    (tried > 2 && s->status[tried - 3] == BAL_UNWRITTEN) ||
	    address_of(s, tried - 1) != address_of(s, tried - 2) + BAL_PAGE_BYTES)
		return tried;
	block = block_of(s, address_of(s, tried - 1));
	while (tried < end && block_of(s, address_of(s, tried)) == block &&
	       s->items[tried].target == s->items[tried - 1].target)
		s->status[tried++] = BAL_STUCK;
	return tried;
}

/* How often the pages of a target were submitted again. Each target has its own: the cursor may stand at any. */
struct patience {
	int target;
	unsigned int resubmissions;
};

/* Leave the pages untried that go where too many have failed. Returns the first one that goes elsewhere. */
static size_t leave_target(struct step *s, size_t first, size_t end)
{
	int target = s->items[first].target;

	while (first < end && s->items[first].target == target)
		s->status[first++] = BAL_UNTRIED;
	return first;
}

/*
 * One call for items [first, end), with separators behind groups of about so many pages; 0: without. Their statuses are
 * those of this call, BAL_UNWRITTEN where it stored none.
 */
static long move_pages(struct step *s, size_t first, size_t end, uint64_t group_pages)
{
	uint64_t weight = 0;
	size_t n = 0;
	long rc = -1;

	for (size_t i = first; i < end; i++) {
		struct item *item = &s->items[i];
		int is_last = i + 1 == end || s->items[i + 1].target != item->target;

		s->call_pages[n] = s->pages[i];
		s->call_nodes[n] = item->target;
		s->call_status[n++] = BAL_UNWRITTEN;
		weight += item->weight;
		item->closes = group_pages && weight >= group_pages && !is_last;
		if (item->closes) {
			s->call_pages[n] = SEPARATOR;
			s->call_nodes[n++] = item->target;
		}
		weight = item->closes || is_last ? 0 : weight;
	}
	if (bal_step_is_gone(s))
		errno = ESRCH;
	else
		rc = syscall(SYS_move_pages, s->pid, n, s->call_pages, s->call_nodes, s->call_status, s->args->flags);
	for (size_t i = first, at = 0; i < end; i++, at += 1 + s->items[i - 1].closes)
		s->status[i] = s->call_status[at];
	return rc;
}

/* Submit items [first, end) in one call, and their untried tails in a few more. */
static int submit_batch(struct step *s, size_t first, size_t end, struct patience *patience)
{
	struct bal_migration *ret = s->ret;
	uint64_t weight = 0, group_pages = s->args->group_pages;

	for (size_t i = first; i < end; i++)
		weight += s->items[i].weight;
	if (weight > ret->largest_call_pages)
		ret->largest_call_pages = weight;
	for (;;) {
		double began = bal_now_seconds(), took;
		long rc;
		int error;

		rc = move_pages(s, first, end, group_pages);
		error = rc < 0 ? errno : 0;
		took = bal_now_seconds() - began;
		if (ret->calls < BAL_CALL_TIMES)
			ret->call_seconds[ret->calls] = took;
		ret->calls++;
		ret->seconds += took;
		if (took > ret->longest_call_seconds)
			ret->longest_call_seconds = took;
		if (rc < 0) {
			ret->error = error;
			for (size_t i = end; i-- > first;) {
				if (s->status[i] == BAL_UNWRITTEN) {
					s->status[i] = BAL_UNTRIED;
					ret->error_target = s->items[i].target;
				}
			}
			return -error;
		}
		if (rc == 0)
			return 0;
		first = skip_stuck_folio(s, end_of_tried(s, first, end), end);
		if (first < end && patience->target != s->items[first].target)
			*patience = (struct patience){ .target = s->items[first].target };
		if (first < end && ++patience->resubmissions > MAX_RESUBMISSIONS)
			first = leave_target(s, first, end);
		if (first == end)
			return 0;
		ret->resubmissions++;
		group_pages = 0; /* the more groups, the more of them may fail, and each takes a call of its own */
	}
}

/* Whether a status says nothing final: no status, another node (old kernels), or EBUSY, which a moved folio gives too. */
static int is_open(int status, int target)
{
	return status == BAL_UNWRITTEN || status == BAL_UNTRIED || status == BAL_STUCK || status == -EBUSY ||
	       (status >= 0 && status != target);
}

/* Whether a page is the second one of its block in the collection. */
static int is_second(const struct step *s, size_t i)
{
	uint64_t block = block_of(s, address_of(s, i));

	return i > 0 && block_of(s, address_of(s, i - 1)) == block &&
	       (i == 1 || block_of(s, address_of(s, i - 2)) != block);
}

/* The final status of a page that the kernel left open, by where it is now. */
static void settle(struct step *s, size_t i, int now)
{
	int was = s->status[i];

	s->items[i].asked = was == BAL_UNWRITTEN || was == BAL_UNTRIED;
	if (now == s->items[i].target) {
		s->status[i] = now;
		if (was != -EBUSY)
			return;
		if (is_second(s, i)) {
			bal_step_close_echo(s);
			s->echo_block = block_of(s, address_of(s, i));
			s->echoes = 1;
		} else if (block_of(s, address_of(s, i)) == s->echo_block) {
			s->echoes++;
		}
	} else if (was != BAL_UNTRIED && was != BAL_STUCK && was != -EBUSY && now != BAL_UNWRITTEN) {
		s->status[i] = now < 0 ? now : -EBUSY;
		s->items[i].refused = now >= 0;
		s->ret->refused += now < 0 ? 0 : s->items[i].head ? 1 : s->items[i].weight;
	}
}

/* Nobody answers where pages are from `i` on: of those that were tried and left open, it is not known if they moved. */
static void give_up(struct step *s, size_t i)
{
	s->is_blind = 1;
	for (; i < s->n; i++)
		if (s->status[i] != BAL_UNTRIED && is_open(s->status[i], s->items[i].target))
			s->status[i] = BAL_UNWRITTEN;
}

/* Ask again for every page whose status is open. */
static void settle_all(struct step *s)
{
	enum { GATHER = 256 };
	void *pages[GATHER];
	int now[GATHER];
	size_t which[GATHER], i = 0;

	while (i < s->n) {
		size_t k = 0;

		for (; i < s->n && k < GATHER; i++) {
			if (is_open(s->status[i], s->items[i].target)) {
				pages[k] = s->pages[i];
				which[k++] = i;
			}
		}
		if (k && bal_step_query(s, k, pages, now)) {
			give_up(s, which[0]);
			return;
		}
		for (size_t j = 0; j < k; j++)
			settle(s, which[j], now[j]);
	}
}

/* Exchange the collection and its copy sorted by target. */
static void exchange(struct step *s)
{
	void **pages = s->pages;
	struct item *items = s->items;

	s->pages = s->sorted_pages;
	s->items = s->sorted_items;
	s->sorted_pages = pages;
	s->sorted_items = items;
}

/* Put a copy sorted by target, otherwise in the same order, in the collection's place. Returns 1 if that was of use. */
static int sort_by_target(struct step *s)
{
	size_t at[BAL_NODES] = { 0 }, before = 0;
	int is_mixed = 0;

	if (!s->args->target_of)
		return 0;
	for (size_t i = 0; i < s->n; i++) {
		at[s->items[i].target]++;
		is_mixed |= s->items[i].target != s->items[0].target;
	}
	if (!is_mixed)
		return 0;
	for (size_t node = 0; node < BAL_NODES; node++) {
		size_t n = at[node];

		at[node] = before;
		before += n;
	}
	for (size_t i = 0; i < s->n; i++) {
		size_t to = at[s->items[i].target]++;

		s->sorted_pages[to] = s->pages[i];
		s->sorted_items[to] = s->items[i];
		s->order[to] = (uint32_t)i;
	}
	exchange(s);
	return 1;
}

/* Put the collection back in its own order, with the statuses of the sorted copy. */
static void restore_order(struct step *s)
{
	int *status = s->sorted_status;

	for (size_t i = 0; i < s->n; i++)
		status[s->order[i]] = s->status[i];
	s->sorted_status = s->status;
	s->status = status;
	exchange(s);
}

/* Submit the whole collection in calls of about equal weight, none above the batch unless one folio is. */
void bal_step_submit(struct step *s)
{
	uint64_t batch = s->args->batch_pages, n_calls = (s->weight + batch - 1) / batch;
	uint64_t per_call = n_calls ? (s->weight + n_calls - 1) / n_calls : 0;
	struct patience patience = { .target = -1 };
	size_t first = 0, end;
	int rc = 0, is_sorted;

	for (size_t i = 0; i < s->n; i++)
		s->status[i] = BAL_UNTRIED;
	if (s->ret->error) /* of collecting: nothing is attempted */
		return;
	is_sorted = sort_by_target(s);
	for (; first < s->n && rc == 0; first = end) {
		uint64_t weight = s->items[first].weight;

		for (end = first + 1; end < s->n && weight + s->items[end].weight <= per_call; end++)
			weight += s->items[end].weight;
		rc = submit_batch(s, first, end, &patience);
	}
	if (is_sorted)
		restore_order(s);
	settle_all(s);
}
