// SPDX-License-Identifier: MIT
/*
 * One bounded step of giving back memory: which pages are present, the advice for those, and which are present after it.
 *
 * process_madvise(2) says neither how many pages it found nor how many went, so they are counted by asking before and
 * after. It stops at the first mapping that takes no such advice (locked, hugetlb, a device's: EINVAL) or is not there
 * any more (ENOMEM), and goes on behind it when called again. Advice never crosses a multiple of the size of a
 * transparent huge page, so that one bad mapping keeps little else back, and no huge page is split by it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core.h"

#define BATCH_LIMIT (1 << 18)
#define BLOCK (UINT64_C(2) << 20)
#define VECTOR_LIMIT 512 /* half of IOV_MAX; and one call takes 2 GiB at most (MAX_RW_COUNT), in blocks here 1 GiB */
#define COLD 20		 /* include/uapi/asm-generic/mman-common.h */
#define PAGEOUT 21

/* Pages next to each other that are present. */
struct part {
	uint64_t start;
	uint64_t end;
	uint64_t range;
	size_t first; /* of the pages */
	int is_refused;
	/* what had been looked at before it */
	uint64_t looked;
	uint64_t absent;
	uint64_t other;
};

struct eviction {
	int pid;
	int pidfd;
	const struct bal_range *ranges;
	size_t n_ranges;
	const struct bal_evict_args *args;
	struct bal_eviction *ret;
	size_t n; /* pages present */
	void **pages;
	int *status;
	size_t n_parts;
	struct part *parts;
};

static int query(struct eviction *e, size_t n, void **pages, int *status)
{
	double unused = 0, began = bal_now_seconds();
	int rc = bal_query(e->pid, n, pages, status, &e->ret->query_calls, &unused);

	e->ret->query_seconds += bal_now_seconds() - began;
	if (rc && !e->ret->error)
		e->ret->error = -rc;
	return rc;
}

/* Keep a page that is present. */
static void keep(struct eviction *e, uint64_t range, uint64_t address)
{
	uint64_t step_bytes = e->ranges[range].step_bytes;
	struct part *last = e->n_parts ? &e->parts[e->n_parts - 1] : NULL;

	if (!last || last->end != address || last->range != range || address % BLOCK == 0)
		e->parts[e->n_parts++] = (struct part){
			.start = address,
			.range = range,
			.first = e->n,
			.looked = e->ret->looked,
			.absent = e->ret->absent,
			.other = e->ret->other,
		};
	e->parts[e->n_parts - 1].end = address + step_bytes;
	e->pages[e->n++] = (void *)(uintptr_t)address;
	e->ret->advised += step_bytes / BAL_PAGE_BYTES;
}

/*
 * Look at the pages in [from, to) and keep those that are present, all of them if they still fit into the batch. Returns
 * the address behind the last page counted, or 0 after an error.
 */
static uint64_t collect_block(struct eviction *e, uint64_t range, uint64_t from, uint64_t to)
{
	struct bal_eviction *ret = e->ret;
	uint64_t step_bytes = e->ranges[range].step_bytes, weight = step_bytes / BAL_PAGE_BYTES, present = 0, a = from;
	void **pages = e->pages + e->n;
	int *status = e->status + e->n;
	size_t n = 0;

	for (; a < to; a += step_bytes)
		pages[n++] = (void *)(uintptr_t)a;
	if (query(e, n, pages, status))
		return 0;
	for (size_t i = 0; i < n; i++)
		present += status[i] >= 0 ? weight : 0;
	if (e->n && ret->advised + present > e->args->batch_pages)
		return from;
	a = from;
	for (size_t i = 0; i < n; i++, a += step_bytes) {
		if (status[i] >= 0) {
			if (e->n && ret->advised + weight > e->args->batch_pages)
				return a;
			keep(e, range, a);
		} else if (status[i] == -ENOENT) {
			ret->absent += weight;
		} else {
			ret->other += weight;
		}
		ret->looked += weight;
	}
	return a;
}

/* Collect block by block from the cursor on until the batch is full, enough was looked at, or the ranges end. */
static void collect(struct eviction *e, struct bal_cursor *cursor)
{
	while (cursor->range < e->n_ranges) {
		const struct bal_range *r = &e->ranges[cursor->range];
		uint64_t from = cursor->address > r->start ? cursor->address : r->start, to, at;

		if (from >= r->end) {
			*cursor = (struct bal_cursor){ .range = cursor->range + 1 };
			continue;
		}
		if (e->ret->advised >= e->args->batch_pages || e->ret->looked >= e->args->look_pages)
			return;
		to = r->step_bytes >= BLOCK ? from + r->step_bytes : (from & ~(BLOCK - 1)) + BLOCK;
		at = collect_block(e, cursor->range, from, to < r->end ? to : r->end);
		if (at == 0)
			return;
		cursor->address = at;
		if (at < to && at < r->end)
			return;
	}
}

/* Give one advice for all parts. After an error that is not a mapping's own, what is behind it is forgotten. */
static void advise(struct eviction *e, struct bal_cursor *cursor)
{
	struct bal_eviction *ret = e->ret;
	struct iovec vector[VECTOR_LIMIT];
	size_t at = 0;

	while (at < e->n_parts) {
		struct part *part = &e->parts[at];
		size_t n = 0;
		double began, took;
		long rc;
		int error;

		for (; n < VECTOR_LIMIT && at + n < e->n_parts; n++)
			vector[n] = (struct iovec){
				.iov_base = (void *)(uintptr_t)part[n].start,
				.iov_len = part[n].end - part[n].start,
			};
		began = bal_now_seconds();
		rc = syscall(SYS_process_madvise, e->pidfd, vector, n, e->args->advice, 0u);
		error = rc < 0 ? errno : 0;
		took = bal_now_seconds() - began;
		if (ret->calls < BAL_CALL_TIMES)
			ret->call_seconds[ret->calls] = took;
		ret->calls++;
		ret->seconds += took;
		if (took > ret->longest_call_seconds)
			ret->longest_call_seconds = took;
		if (error == EINVAL || error == ENOMEM || rc == 0) {
			part->is_refused = 1; /* what lies before the mapping that takes no advice may have gone */
			at++;
		} else if (error) {
			if (!ret->error)
				ret->error = error;
			ret->looked = part->looked;
			ret->absent = part->absent;
			ret->other = part->other;
			ret->advised = part->looked - part->absent - part->other;
			*cursor = (struct bal_cursor){ .range = part->range, .address = part->start };
			e->n = part->first;
			e->n_parts = at;
		}
		for (uint64_t left = rc > 0 ? (uint64_t)rc : 0; left && at < e->n_parts; at++) {
			uint64_t bytes = e->parts[at].end - e->parts[at].start;

			left -= left < bytes ? left : bytes;
		}
	}
}

/* Count the pages that are not present any more. */
static void count(struct eviction *e)
{
	if (e->n == 0 || query(e, e->n, e->pages, e->status)) {
		e->ret->kept = e->ret->advised;
		return;
	}
	for (size_t p = 0; p < e->n_parts; p++) {
		const struct part *part = &e->parts[p];
		uint64_t step_bytes = e->ranges[part->range].step_bytes;
		size_t n = (part->end - part->start) / step_bytes;

		for (size_t i = part->first; i < part->first + n; i++) {
			uint64_t weight = step_bytes / BAL_PAGE_BYTES;
			/* up to 6.11 an anonymous page that is gone and not in swap (MADV_FREE) is EFAULT, see follow_page() */
			int is_evicted = e->status[i] == -ENOENT || e->status[i] == -EFAULT;

			e->ret->evicted += is_evicted ? weight : 0;
			e->ret->kept += is_evicted ? 0 : weight;
			e->ret->refused += !is_evicted && part->is_refused ? weight : 0;
		}
	}
}

int bal_evict(int pid, int pidfd, const struct bal_range *ranges, size_t n_ranges, const struct bal_evict_args *args,
	      struct bal_cursor *cursor, struct bal_eviction *ret)
{
	struct eviction e = {
		.pid = pid, .pidfd = pidfd, .ranges = ranges, .n_ranges = n_ranges, .args = args, .ret = ret,
	};
	size_t capacity = args->batch_pages + BLOCK / BAL_PAGE_BYTES;
	int rc = -ENOMEM;

	memset(ret, 0, sizeof(*ret));
	if (pid <= 0 || pidfd < 0 || args->batch_pages == 0 || args->batch_pages > BATCH_LIMIT || args->look_pages == 0 ||
	    n_ranges > UINT32_MAX || cursor->range > n_ranges || (args->advice != COLD && args->advice != PAGEOUT))
		return -EINVAL;
	for (size_t i = 0; i < n_ranges; i++)
		if (!bal_range_is_valid(&ranges[i]))
			return -EINVAL;
	e.pages = malloc(capacity * sizeof(*e.pages));
	e.status = malloc(capacity * sizeof(*e.status));
	e.parts = malloc(capacity * sizeof(*e.parts));
	if (e.pages && e.status && e.parts) {
		collect(&e, cursor);
		advise(&e, cursor);
		count(&e);
		ret->done = cursor->range >= n_ranges && !ret->error;
		rc = 0;
	}
	free(e.pages);
	free(e.status);
	free(e.parts);
	return rc;
}
