// SPDX-License-Identifier: MIT
/*
 * Submitting a collection of pages to move_pages(2) until every page has a final status.
 *
 * A positive return leaves statuses unwritten and the tail of the pages untried: the tail is submitted again, and pages
 * without a status are asked for again. Nothing is counted by the return value, whose meaning has changed between
 * releases. A second address inside one large folio gets EBUSY, since the first took the folio along: a page with EBUSY
 * that is on the target afterwards has moved. Which pages to submit is not decided here.
 */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "step.h"

#define MAX_RESUBMISSIONS 10

int bal_step_query(struct step *s, size_t n, void **pages, int *status)
{
	double unused = 0, began = bal_now_seconds();
	int rc = bal_query(s->pid, n, pages, status, &s->ret->query_calls, &unused);

	s->ret->query_seconds += bal_now_seconds() - began;
	if (rc)
		s->ret->error = -rc;
	return rc;
}

/*
 * Behind which page the kernel stopped after a positive return. It stores a status for the page that ended the group
 * before it moves the group, and stops when the group fails: so a written status behind an unwritten one is the last
 * page tried; without such, the failing group was the last one and all were tried.
 */
static size_t end_of_tried(const struct step *s, size_t first, size_t end)
{
	size_t last = end;

	while (last > first && s->status[last - 1] == BAL_UNWRITTEN)
		last--;
	for (size_t i = first; i < last; i++)
		if (s->status[i] == BAL_UNWRITTEN)
			return last;
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
	while (tried < end && block_of(s, address_of(s, tried)) == block)
		s->status[tried++] = BAL_STUCK;
	return tried;
}

/* Submit items [first, end) in one call, and their untried tails in a few more. */
static int submit_batch(struct step *s, size_t first, size_t end, unsigned int *resubmissions)
{
	struct bal_migration *ret = s->ret;
	uint64_t weight = 0;

	for (size_t i = first; i < end; i++)
		weight += s->items[i].weight;
	if (weight > ret->largest_call_pages)
		ret->largest_call_pages = weight;
	for (;;) {
		double began = bal_now_seconds(), took;
		long rc;
		int error;

		for (size_t i = first; i < end; i++) {
			s->status[i] = BAL_UNWRITTEN;
			s->nodes[i] = s->args->node;
		}
		rc = syscall(SYS_move_pages, s->pid, end - first, s->pages + first, s->nodes + first, s->status + first,
			     s->args->flags);
		error = rc < 0 ? errno : 0;
		took = bal_now_seconds() - began;
		ret->calls++;
		ret->seconds += took;
		if (took > ret->longest_call_seconds)
			ret->longest_call_seconds = took;
		if (rc < 0) {
			ret->error = error;
			for (size_t i = first; i < end; i++)
				if (s->status[i] == BAL_UNWRITTEN)
					s->status[i] = BAL_UNTRIED;
			return -error;
		}
		if (rc == 0)
			return 0;
		first = skip_stuck_folio(s, end_of_tried(s, first, end), end);
		if (first == end)
			return 0;
		if (++*resubmissions > MAX_RESUBMISSIONS)
			break;
		ret->resubmissions++;
	}
	for (size_t i = first; i < end; i++)
		s->status[i] = BAL_UNTRIED;
	return 0;
}

/* Whether a status says nothing final: no status, another node (old kernels), or EBUSY, which a moved folio gives too. */
static int is_open(const struct step *s, int status)
{
	return status == BAL_UNWRITTEN || status == BAL_UNTRIED || status == BAL_STUCK || status == -EBUSY ||
	       (status >= 0 && status != s->args->node);
}

/* The final status of a page that the kernel left open, by where it is now. */
static void settle(struct step *s, size_t i, int now)
{
	int was = s->status[i];
	uint64_t block = block_of(s, address_of(s, i));

	if (now == s->args->node) {
		s->status[i] = now;
		if (was != -EBUSY)
			return;
		if (address_of(s, i) == block + BAL_PAGE_BYTES) {
			s->echo_block = block;
			s->echoes = 1;
		} else if (block == s->echo_block) {
			s->echoes++;
		}
	} else if (was != BAL_UNTRIED && was != BAL_STUCK && was != -EBUSY && now != BAL_UNWRITTEN) {
		s->status[i] = now < 0 ? now : -EBUSY;
		s->ret->refused += now < 0 ? 0 : s->items[i].head ? 1 : s->items[i].weight;
	}
}

/* Ask again for every page whose status is open. An error leaves them as they are. */
static int settle_all(struct step *s)
{
	enum { GATHER = 256 };
	void *pages[GATHER];
	int now[GATHER];
	size_t which[GATHER], i = 0;

	while (i < s->n) {
		size_t k = 0;
		int rc;

		for (; i < s->n && k < GATHER; i++) {
			if (is_open(s, s->status[i])) {
				pages[k] = s->pages[i];
				which[k++] = i;
			}
		}
		rc = k ? bal_step_query(s, k, pages, now) : 0;
		if (rc)
			return rc;
		for (size_t j = 0; j < k; j++)
			settle(s, which[j], now[j]);
	}
	return 0;
}

/* Submit the whole collection in calls of about equal weight, none above the batch unless one folio is. */
void bal_step_submit(struct step *s)
{
	uint64_t batch = s->args->batch_pages, n_calls = (s->weight + batch - 1) / batch;
	uint64_t per_call = n_calls ? (s->weight + n_calls - 1) / n_calls : 0;
	unsigned int resubmissions = 0;
	size_t first = 0, end;
	int rc = 0, error;

	for (size_t i = 0; i < s->n; i++)
		s->status[i] = BAL_UNTRIED;
	if (s->ret->error) /* of collecting: nothing is attempted */
		return;
	for (; first < s->n && rc == 0; first = end) {
		uint64_t weight = s->items[first].weight;

		for (end = first + 1; end < s->n && weight + s->items[end].weight <= per_call; end++)
			weight += s->items[end].weight;
		rc = submit_batch(s, first, end, &resubmissions);
	}
	error = s->ret->error;
	settle_all(s);
	if (error) /* the first one tells more than that of asking again */
		s->ret->error = error;
}
