// SPDX-License-Identifier: MIT
/* Which pages are asked for, and how the answers are counted: bal_sample(), bal_placement(). */
#include "memory.h"

#define MOST_VMAS 12
#define LINE 80

static uint8_t asked[FRAMES];
static uint64_t questions;

long answer_syscall(long number, ...)
{
	va_list given;
	unsigned long n;
	void **pages;
	int pid, *status;

	MUST(number == SYS_move_pages);
	va_start(given, number);
	pid = va_arg(given, int);
	n = va_arg(given, unsigned long);
	pages = va_arg(given, void **);
	MUST(!va_arg(given, void *));
	status = va_arg(given, int *);
	va_end(given);
	for (unsigned long i = 0; i < n; i++)
		asked[((uintptr_t)pages[i] - MEMORY_START) / PAGE] += is_mapped((uintptr_t)pages[i]);
	questions += n;
	return answer_query(pid, n, pages, status);
}

/* Mappings of base pages, and at odd places of huge pages of 16 KiB, as the text of maps. */
static size_t make_vmas(struct input *in, struct bal_vma *vmas, struct bal_maps *maps)
{
	char text[MOST_VMAS * LINE];
	size_t n = eat_byte(in) % (MOST_VMAS + 1), length = 0;
	uint64_t at = MEMORY_START, unit = 4 * PAGE;

	for (size_t i = 0; i < n; i++) {
		uint8_t skip = eat_byte(in), size = eat_byte(in);
		uint64_t step = i % 4 == 3 ? unit : PAGE;
		uint64_t start = (at + skip % 16 * PAGE + step - 1) / step * step, end = start + (1 + size) * step;

		if (end > MEMORY_START + FRAMES * PAGE)
			break;
		length += (size_t)snprintf(text + length, LINE, "%llx-%llx rw-p 0 0:0 0%s\n", (unsigned long long)start,
					   (unsigned long long)end, i % 4 == 3 ? " /anon_hugepage" : "");
		at = end;
	}
	MUST(bal_parse_maps(text, length, NULL, 0, unit, vmas, MOST_VMAS, maps) == 0);
	return maps->n_vmas;
}

static void sample(struct input *in, const struct bal_vma *vmas, size_t n_vmas, const struct bal_maps *maps)
{
	uint32_t strata = eat_byte(in) % 2 ? 1u << BAL_HUGETLB_STRATUM : (1u << BAL_HUGETLB_STRATUM) - 1, n_nodes = eat_byte(in) % 6;
	uint64_t wanted = eat_number(in), seed = eat_long(in), width = n_nodes + 3, units = 0;
	size_t capacity = n_vmas + 1;
	uint64_t *rows = exactly(capacity * width * sizeof(*rows)), in_rows = 0;
	struct bal_tally told;
	int rc;

	for (size_t i = 0; i < n_vmas; i++)
		units += strata >> vmas[i].stratum & 1 ?
				 (vmas[i].end - vmas[i].start) / maps->unit_bytes[vmas[i].stratum] : 0;
	rc = bal_sample(TARGET_PID, vmas, n_vmas, maps, strata, wanted, seed, n_nodes, rows, capacity, &told);
	MUST(rc == 0 || (memory.has_failed_query && rc == -memory.failure));
	MUST(told.units == units);
	for (uint64_t i = 0; i < told.n_rows; i++) {
		const uint64_t *row = rows + i * width;

		MUST(row[0] < n_vmas && strata >> vmas[row[0]].stratum & 1);
		MUST(i == 0 || row[0] > row[-(int64_t)width] || rows[0] >= row[0]);
		in_rows += sum_of(row + 1, width - 1);
	}
	MUST(in_rows == told.asked && sum_of(told.on_node, BAL_NODES) == told.present);
	if (rc == 0)
		MUST(told.asked == questions && told.asked == (wanted >= units ? units : wanted / 2 * 2));
	for (size_t i = 0; i < FRAMES; i++)
		MUST(asked[i] <= 1);
	for (size_t node = 0; node < BAL_NODES; node++)
		MUST(told.alone[node] <= told.differ[node] && told.differ[node] <= told.on_node[node]);
	free(rows);
}

static void place(struct input *in, const struct bal_vma *vmas, size_t n_vmas, const struct bal_maps *maps)
{
	struct bal_range ranges[MOST_VMAS] = { 0 };
	uint32_t n_nodes = eat_byte(in) % 6;
	uint64_t samples = eat_number(in), *rows = exactly(n_vmas * (n_nodes + 2) * sizeof(*rows)), total = 0;
	double phase = eat_byte(in) / 255.0;
	struct bal_placement told;
	int rc;

	for (size_t i = 0; i < n_vmas; i++) {
		ranges[i] = (struct bal_range){ vmas[i].start, vmas[i].end, maps->unit_bytes[vmas[i].stratum] };
		total += (vmas[i].end - vmas[i].start) / PAGE;
	}
	rc = bal_placement(TARGET_PID, ranges, n_vmas, samples, phase, n_nodes, rows, &told);
	MUST(rc == 0 || (rc == -EINVAL && phase >= 1) || (memory.has_failed_query && rc == -memory.failure));
	if (rc)
		goto out;
	MUST(told.queried == (samples == 0 || samples >= total ? total : samples));
	MUST(told.queried == sum_of(told.on_node, BAL_NODES) + sum_of(told.by_errno, BAL_ERRNOS) + told.unwritten);
	MUST(sum_of(rows, n_vmas * (n_nodes + 2)) == told.queried);
out:
	free(rows);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct bal_vma vmas[MOST_VMAS];
	struct bal_maps maps;
	size_t n_vmas = make_vmas(&in, vmas, &maps);
	uint8_t which = eat_byte(&in);

	memset(asked, 0, sizeof(asked));
	questions = 0;
	begin_memory(&in, FRAMES);
	if (which % 2)
		sample(&in, vmas, n_vmas, &maps);
	else
		place(&in, vmas, n_vmas, &maps);
	return 0;
}
