// SPDX-License-Identifier: MIT
/*
 * Pages of each mapping by node from the text of /proc/PID/numa_maps: show_numa_map() in fs/proc/task_mmu.c. It counts in
 * units of kernelpagesize_kB, and escapes blanks in names, so that a blank ends every field.
 */
#include <errno.h>
#include <string.h>

#include "core.h"

static const char *digits(const char *at, const char *end, uint64_t *ret)
{
	const char *from = at;

	*ret = 0;
	for (; at < end && *at >= '0' && *at <= '9'; at++)
		*ret = *ret * 10 + (uint64_t)(*at - '0');
	return at > from && at - from < 20 ? at : NULL;
}

static const char *hexadecimal(const char *at, const char *end, uint64_t *ret)
{
	const char *from = at;

	*ret = 0;
	for (; at < end && ((*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'f')); at++)
		*ret = *ret * 16 + (uint64_t)(*at <= '9' ? *at - '0' : *at - 'a' + 10);
	return at > from && at - from <= 16 ? at : NULL;
}

/* One field, " N3=17" or " kernelpagesize_kB=4", without its blank. Others mean nothing here. */
static int take_field(const char *at, const char *end, uint32_t n_nodes, uint64_t *on_node, uint64_t *unit_pages,
		      uint64_t *sum)
{
	static const char size[] = "kernelpagesize_kB=";
	uint64_t node, value;

	if (end - at > 3 && *at == 'N' && at[1] >= '0' && at[1] <= '9') {
		at = digits(at + 1, end, &node);
		if (!at || *at != '=' || digits(at + 1, end, &value) != end)
			return -EBADMSG;
		if (node < n_nodes)
			on_node[node] += value, *sum += value;
	} else if ((size_t)(end - at) >= sizeof(size) && memcmp(at, size, sizeof(size) - 1) == 0) {
		if (digits(at + sizeof(size) - 1, end, &value) != end || value < 4)
			return -EBADMSG;
		*unit_pages = value / 4;
	}
	return 0;
}

/* The fields of one line into a row. Returns the units that it has on nodes, or -EBADMSG. */
static int take_line(const char *at, const char *end, uint32_t n_nodes, uint64_t *row, uint64_t *sum)
{
	uint64_t unit_pages = 1;

	*sum = 0;
	memset(row, 0, (n_nodes + 3) * sizeof(*row));
	while (at < end) {
		const char *blank = memchr(at, ' ', (size_t)(end - at));
		const char *to = blank ? blank : end;
		int rc = take_field(at, to, n_nodes, row + 1, &unit_pages, sum);

		if (rc)
			return rc;
		at = to + 1;
	}
	for (uint32_t n = 0; n < n_nodes; n++)
		row[1 + n] *= unit_pages;
	*sum *= unit_pages;
	return 0;
}

int bal_count_numa_maps(const char *text, size_t length, const struct bal_vma *vmas, size_t n_vmas, uint32_t n_nodes,
			uint64_t *rows, size_t row_capacity, struct bal_tally *ret)
{
	const char *end = text + length;
	size_t vma = 0;

	memset(ret, 0, sizeof(*ret));
	if (n_nodes > BAL_NODES)
		return -EINVAL;
	for (const char *at = text; at < end;) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const char *to = newline ? newline : end, *fields;
		uint64_t *row, start, sum;
		int rc;

		if (at == to) {
			at = to + 1;
			continue;
		}
		fields = hexadecimal(at, to, &start);
		if (!fields || (fields < to && *fields != ' '))
			return -EBADMSG;
		at = to + 1;
		while (vma < n_vmas && vmas[vma].start < start)
			vma++;
		if (vma == n_vmas || vmas[vma].start != start || vmas[vma].stratum == BAL_NO_STRATUM)
			continue;
		if (ret->n_rows >= row_capacity)
			return -ENOSPC;
		row = rows + ret->n_rows * (n_nodes + 3);
		rc = take_line(fields, to, n_nodes, row, &sum);
		if (rc)
			return rc;
		if (!sum)
			continue;
		row[0] = vma;
		ret->n_rows++;
		ret->present += sum;
		for (uint32_t n = 0; n < n_nodes; n++)
			ret->on_node[n] += row[1 + n];
	}
	return 0;
}
