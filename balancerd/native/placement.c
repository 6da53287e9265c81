// SPDX-License-Identifier: MIT
/*
 * Which node holds the pages of a list of ranges: all of them, or a systematic sample.
 *
 * Systematic, because pages near each other tend to lie on the same node: contiguous runs of addresses estimate badly,
 * single addresses at equal distances well.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core.h"

#define CHUNK 4096 /* addresses a call; 16 of them are looked up under one mmap_lock (mm/migrate.c, do_pages_stat) */

double bal_now_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int bal_query(int pid, size_t n, void **pages, int *status, uint64_t *calls, double *longest_seconds)
{
	size_t at, k;

	for (at = 0; at < n; at += k) {
		double began = bal_now_seconds(), took;
		long rc;

		k = n - at < CHUNK ? n - at : CHUNK;
		for (size_t i = at; i < at + k; i++)
			status[i] = BAL_UNWRITTEN;
		rc = syscall(SYS_move_pages, pid, k, pages + at, NULL, status + at, 0);
		if (rc < 0)
			return -errno;
		took = bal_now_seconds() - began;
		++*calls;
		if (took > *longest_seconds)
			*longest_seconds = took;
	}
	return 0;
}

/* Addresses on their way to the kernel, and for each its range and how many base pages its answer stands for. */
struct chunk {
	void *pages[CHUNK];
	int status[CHUNK];
	uint32_t range[CHUNK];
	uint32_t weight[CHUNK];
	size_t n;
	int pid;
	uint32_t n_nodes;
	uint64_t *per_range;
	struct bal_placement *ret;
};

static int flush(struct chunk *c)
{
	struct bal_placement *ret = c->ret;
	int rc = bal_query(c->pid, c->n, c->pages, c->status, &ret->calls, &ret->longest_call_seconds);

	if (rc)
		return rc;
	for (size_t i = 0; i < c->n; i++) {
		uint32_t weight = c->weight[i], column = c->n_nodes + 1;
		int status = c->status[i];

		ret->queried += weight;
		if (status >= 0 && status < BAL_NODES) {
			ret->on_node[status] += weight;
			if ((uint32_t)status < c->n_nodes)
				column = (uint32_t)status;
		} else if (status == BAL_UNWRITTEN) {
			ret->unwritten += weight;
		} else {
			ret->by_errno[bal_errno_index(status)] += weight;
			if (status == -ENOENT)
				column = c->n_nodes;
		}
		if (c->per_range)
			c->per_range[(size_t)c->range[i] * (c->n_nodes + 2) + column] += weight;
	}
	c->n = 0;
	return 0;
}

static int add(struct chunk *c, size_t range, uint64_t address, uint64_t weight)
{
	c->pages[c->n] = (void *)(uintptr_t)address;
	c->range[c->n] = (uint32_t)range;
	c->weight[c->n] = (uint32_t)weight;
	return ++c->n == CHUNK ? flush(c) : 0;
}

static int add_every_page(struct chunk *c, const struct bal_range *ranges, size_t n_ranges)
{
	for (size_t i = 0; i < n_ranges; i++) {
		const struct bal_range *r = &ranges[i];

		for (uint64_t a = r->start; a < r->end; a += r->step_bytes) {
			int rc = add(c, i, a, r->step_bytes / BAL_PAGE_BYTES);

			if (rc)
				return rc;
		}
	}
	return 0;
}

static int add_sample(struct chunk *c, const struct bal_range *ranges, uint64_t total, uint64_t samples, double phase)
{
	uint64_t shift = (uint64_t)(phase * (double)total), before = 0;
	size_t range = 0;

	if (shift >= total)
		shift = total - 1;
	for (uint64_t i = 0; i < samples; i++) {
		/* (i + phase) * total / samples, in integers: the page's number among all pages of all ranges */
		uint64_t number = (uint64_t)(((unsigned __int128)i * total + shift) / samples);
		uint64_t offset;
		int rc;

		while (number - before >= (ranges[range].end - ranges[range].start) / BAL_PAGE_BYTES)
			before += (ranges[range].end - ranges[range].start) / BAL_PAGE_BYTES, range++;
		offset = (number - before) * BAL_PAGE_BYTES;
		rc = add(c, range, ranges[range].start + offset - offset % ranges[range].step_bytes, 1);
		if (rc)
			return rc;
	}
	return 0;
}

int bal_placement(int pid, const struct bal_range *ranges, size_t n_ranges, uint64_t samples, double phase,
		  uint32_t n_nodes, uint64_t *per_range, struct bal_placement *ret)
{
	struct chunk c = { .pid = pid, .n_nodes = n_nodes, .per_range = per_range, .ret = ret };
	double began = bal_now_seconds();
	uint64_t total = 0;
	int rc;

	memset(ret, 0, sizeof(*ret));
	if (pid <= 0 || n_nodes > BAL_NODES || n_ranges > UINT32_MAX || !(phase >= 0 && phase < 1))
		return -EINVAL;
	if (per_range)
		memset(per_range, 0, n_ranges * (n_nodes + 2) * sizeof(*per_range));
	for (size_t i = 0; i < n_ranges; i++) {
		if (!bal_range_is_valid(&ranges[i]))
			return -EINVAL;
		total += (ranges[i].end - ranges[i].start) / BAL_PAGE_BYTES;
	}
	if (samples == 0 || samples >= total)
		rc = add_every_page(&c, ranges, n_ranges);
	else
		rc = add_sample(&c, ranges, total, samples, phase);
	if (rc == 0 && c.n)
		rc = flush(&c);
	ret->seconds = bal_now_seconds() - began;
	return rc;
}
