// SPDX-License-Identifier: MIT
/* The text of maps, and then that of numa_maps beside the mappings it made: bal_parse_maps(), bal_count_numa_maps(). */
#include <errno.h>

#include "fuzz.h"

#define MOST_DEVICES 3

static size_t count_lines(const char *text, size_t n)
{
	size_t lines = n && text[n - 1] != '\n';

	for (size_t i = 0; i < n; i++)
		lines += text[i] == '\n';
	return lines;
}

static int is_program(const struct bal_vma *vmas, size_t n, const struct bal_vma *vma)
{
	for (size_t i = 0; i < n; i++)
		if (vmas[i].kind == BAL_FILE && vmas[i].flags & BAL_EXECUTABLE && vmas[i].inode == vma->inode &&
		    vmas[i].device == vma->device)
			return 1;
	return 0;
}

static void check_maps(const char *text, size_t length, const struct bal_vma *vmas, const struct bal_maps *maps)
{
	uint64_t pages[BAL_STRATA] = { 0 };

	for (size_t i = 0; i < maps->n_vmas; i++) {
		const struct bal_vma *vma = &vmas[i];

		MUST(vma->start < vma->end && vma->kind <= BAL_SPECIAL);
		MUST((uint64_t)vma->name_at + vma->name_bytes <= length && !memchr(text + vma->name_at, '\n', vma->name_bytes));
		MUST(!(vma->flags & BAL_PROGRAM) == !(vma->kind == BAL_FILE && is_program(vmas, maps->n_vmas, vma)));
		MUST(vma->stratum < BAL_STRATA || vma->stratum == BAL_NO_STRATUM);
		if (vma->stratum == BAL_NO_STRATUM)
			continue;
		MUST(vma->kind != BAL_SPECIAL && vma->end <= INT64_MAX);
		MUST((vma->start | vma->end) % maps->unit_bytes[vma->stratum] == 0);
		MUST(vma->stratum < BAL_HUGETLB_STRATUM ? maps->unit_bytes[vma->stratum] == PAGE : vma->kind == BAL_HUGETLB);
		pages[vma->stratum] += (vma->end - vma->start) / PAGE;
	}
	MUST(!memcmp(pages, maps->pages, sizeof(pages)));
}

static void count_numa_maps(struct input *in, const struct bal_vma *vmas, size_t n_vmas, uint32_t n_nodes, size_t capacity)
{
	size_t width = n_nodes + 3;
	uint64_t *rows = exactly(capacity * width * sizeof(*rows)), present = 0, on_node[BAL_NODES] = { 0 };
	char *text = exactly(in->n);
	struct bal_tally tally;
	int rc;

	if (in->n)
		memcpy(text, in->at, in->n);
	rc = bal_count_numa_maps(text, in->n, vmas, n_vmas, n_nodes, rows, capacity, &tally);
	MUST(rc == 0 || rc == -EBADMSG || (rc == -ENOSPC && tally.n_rows == capacity));
	MUST(tally.n_rows <= capacity && !tally.asked && !tally.units);
	for (size_t i = 0; i < tally.n_rows; i++) {
		const uint64_t *row = rows + i * width;

		MUST(row[0] < n_vmas && vmas[row[0]].stratum != BAL_NO_STRATUM);
		MUST(!row[width - 2] && !row[width - 1]);
		for (uint32_t node = 0; node < n_nodes; node++)
			on_node[node] += row[1 + node];
		present += sum_of(row + 1, n_nodes);
	}
	MUST(present == tally.present && !memcmp(on_node, tally.on_node, sizeof(on_node)));
	free(text);
	free(rows);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t shape = eat_byte(&in), huge_shift = eat_byte(&in), nodes = eat_byte(&in);
	struct bal_device devices[MOST_DEVICES];
	size_t n_devices = shape % (MOST_DEVICES + 1), length, lines, capacity;
	uint64_t huge_bytes = huge_shift < 64 ? UINT64_C(1) << huge_shift : huge_shift;
	const uint8_t *end;
	struct bal_vma *vmas;
	struct bal_maps maps;
	char *text;
	int rc;

	for (size_t i = 0; i < n_devices; i++)
		devices[i] = (struct bal_device){ .device = eat_byte(&in), .kind = eat_byte(&in) & 1 ? BAL_HUGETLB : BAL_SHMEM,
						  .page_bytes = UINT64_C(1) << eat_byte(&in) % 64 };
	end = in.n ? memchr(in.at, '\0', in.n) : NULL;
	length = end ? (size_t)(end - in.at) : in.n;
	text = exactly(length);
	eat(&in, text, length);
	eat_byte(&in);
	lines = count_lines(text, length);
	capacity = shape & 0x80 ? shape >> 2 & 31 : lines;
	vmas = exactly(capacity * sizeof(*vmas));
	rc = bal_parse_maps(text, length, devices, n_devices, huge_bytes, vmas, capacity, &maps);
	MUST(maps.n_vmas <= capacity);
	if (rc == 0)
		check_maps(text, length, vmas, &maps);
	else
		MUST(rc == -EBADMSG ? maps.error_line && maps.error_line <= lines :
				      rc == -ENOSPC && !maps.error_line && capacity < lines);
	if (rc == 0)
		count_numa_maps(&in, vmas, maps.n_vmas, nodes, shape & 0x40 ? shape & 3 : maps.n_vmas);
	free(vmas);
	free(text);
	return 0;
}
