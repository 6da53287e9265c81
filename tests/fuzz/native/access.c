// SPDX-License-Identifier: MIT
/* A table of accesses through its life: counting, forgetting, looking, judging. */
#include <errno.h>

#include "fuzz.h"
#include "table.h"

#define MOST_CPUS 8
#define MOST_ACCESSES 300
#define MOST_STEPS 64
#define REGION_BYTES (PAGE << 9)

/* Near each other mostly, so that regions fill; never of the kernel. */
static uint64_t eat_address(struct input *in)
{
	uint8_t kind = eat_byte(in);

	if (kind < 128)
		return UINT64_C(0x7f0000000000) + kind * PAGE + eat_byte(in);
	if (kind < 240)
		return UINT64_C(0x7f0000000000) + (kind & 7) * REGION_BYTES + eat_short(in) % 512 * PAGE;
	return eat_long(in) >> 8;
}

static uint64_t eat_time(struct input *in)
{
	uint8_t kind = eat_byte(in);

	return kind == 255 ? eat_long(in) : kind * BAL_TICK_NS;
}

static void add(struct input *in, struct bal_access_table *table)
{
	struct bal_access accesses[MOST_ACCESSES];
	uint8_t shape = eat_byte(in);
	size_t n = shape & 0x80 ? eat_short(in) % MOST_ACCESSES + 1 : 1 + shape % 8;
	uint64_t taken = table->taken, time_ns = eat_time(in);

	for (size_t i = 0; i < n; i++)
		accesses[i] = (struct bal_access){ .address = eat_address(in), .time_ns = time_ns,
						   .tid = 1u + eat_byte(in) % 5, .cpu = eat_byte(in) % (MOST_CPUS + 2) };
	MUST(bal_access_add(accesses, n, shape & 0x40, table) == 0);
	MUST(table->taken == taken + n);
}

static void forget(struct input *in, struct bal_access_table *table)
{
	uint64_t pages = table->pages, before_ns = eat_time(in), gone;

	MUST(bal_access_forget(table, before_ns, &gone) == 0);
	MUST(table->pages + gone == pages);
	for (uint64_t i = 0; i < table->capacity; i++) {
		const struct bal_access_cell *cell = bal_access_cell(table, i);

		MUST(!cell->key || cell->last >= bal_access_ticks(before_ns));
	}
}

static void look(struct input *in, const struct bal_access_table *table)
{
	struct bal_access_page page;
	uint64_t address = eat_address(in);
	int rc = bal_access_look(table, address, &page);

	MUST(rc == 0 || rc == -ENOENT);
	MUST((rc == 0) == (bal_access_find(table, (address >> BAL_PAGE_SHIFT) + 1) != NULL));
	MUST(rc || sum_of((uint64_t[]){ page.first_ns, page.last_ns }, 2) % BAL_TICK_NS == 0);
}

static void check_runs(const struct bal_access_table *table, const struct bal_access_run *runs, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		const struct bal_access_run *run = &runs[i];

		MUST(run->start < run->end && (run->start | run->end) % PAGE == 0);
		MUST(i == 0 || runs[i - 1].end <= run->start);
		MUST(run->slot >= 0 && (uint32_t)run->slot < table->n_slots);
		MUST(run->judged <= (run->end - run->start) / PAGE); /* 0: by its region */
		MUST(run->node_weight <= run->weight);
	}
}

static void check_regions(const struct bal_access_table *table, const struct bal_access_region *regions,
			  const struct bal_access_judgement *told)
{
	uint64_t pages = 0, judged = 0, mixed = 0;

	for (uint64_t i = 0; i < told->n_regions; i++) {
		const struct bal_access_region *region = &regions[i];

		MUST(region->start % REGION_BYTES == 0 && (i == 0 || regions[i - 1].start < region->start));
		MUST(region->pages && region->pages <= 512 && region->judged <= region->pages);
		MUST(region->slot >= -1 && region->slot < (int32_t)table->n_slots);
		pages += region->pages;
		judged += region->judged;
		mixed += (uint64_t)region->mixed;
	}
	if (told->missed_regions)
		return;
	MUST(pages == told->pages && judged == told->judged && mixed == told->mixed_regions);
}

static void judge(struct input *in, const struct bal_access_table *table)
{
	struct bal_access_judge_args args = {
		.rule = { .min_share = eat_byte(in) / 255.0, .region_share = eat_byte(in) / 255.0,
			  .mixed_share = eat_byte(in) / 255.0, .z = eat_byte(in) / 50.0, .min_samples = eat_byte(in),
			  .sole_samples = eat_byte(in), .region_pages = eat_byte(in) },
		.since_ns = eat_time(in),
		.run_capacity = eat_byte(in),
		.region_capacity = eat_byte(in),
	};
	struct bal_access_judgement told;
	int rc;

	args.scratch = exactly(2 * table->pages * sizeof(*args.scratch));
	args.runs = exactly(args.run_capacity * sizeof(*args.runs));
	args.regions = exactly(args.region_capacity * sizeof(*args.regions));
	rc = bal_access_judge(table, &args, &told);
	MUST(rc == (args.rule.min_samples && args.rule.sole_samples ? 0 : -EINVAL));
	MUST(told.pages <= table->pages && told.judged <= told.pages && told.mixed_regions <= told.n_regions + told.missed_regions);
	MUST(told.n_runs <= args.run_capacity && (!told.missed_runs || told.n_runs == args.run_capacity));
	MUST(told.n_regions <= args.region_capacity && (!told.missed_regions || told.n_regions == args.region_capacity));
	check_runs(table, args.runs, told.n_runs);
	check_regions(table, args.regions, &told);
	free(args.scratch);
	free(args.runs);
	free(args.regions);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint32_t n_slots = eat_byte(&in) % (BAL_ACCESS_SLOTS + 2);
	uint64_t bytes = eat_short(&in);
	int8_t slot_of_cpu[MOST_CPUS];
	struct bal_access_table table;
	void *memory = calloc(1, bytes ? bytes : 1);
	int rc;

	for (int i = 0; i < MOST_CPUS; i++)
		slot_of_cpu[i] = (int8_t)(eat_byte(&in) % (BAL_ACCESS_SLOTS + 1) - 1);
	rc = bal_access_start(memory, bytes, n_slots, slot_of_cpu, MOST_CPUS, &table);
	MUST(rc == 0 || rc == -EINVAL);
	for (int step = 0; rc == 0 && step < MOST_STEPS && in.n; step++) {
		uint8_t what = eat_byte(&in);

		if (what < 160)
			add(&in, &table);
		else if (what < 192)
			forget(&in, &table);
		else if (what < 216)
			look(&in, &table);
		else
			judge(&in, &table);
		check_table(&table);
	}
	free(memory);
	return 0;
}
