// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "part.h"

#define HUGE (2ul << 20)
#define WORDS (LINE / sizeof(uint64_t)) /* of a line */
#define GOLDEN UINT64_C(0x9E3779B97F4A7C15)

typedef uint64_t pair __attribute__((vector_size(16)));

bool run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return !sched_setaffinity(0, sizeof(set), &set);
}

static char *page_at(const struct part *part, size_t page)
{
	return part->memory + page * PAGE;
}

static size_t divisor_of(size_t a, size_t b)
{
	while (b) {
		size_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/* Steps of about the golden ratio lead far away, and through all pages when there is no divisor in common. */
static size_t step_through(size_t n_pages)
{
	size_t step = n_pages * 618 / 1000 + 1;

	while (divisor_of(n_pages, step) != 1)
		step++;
	return step % n_pages;
}

/* 21 and 17 make a sequence of all lines of the page that begins and ends at the first (Hull and Dobell). */
static uint64_t link_of(const struct part *part, size_t page, size_t line)
{
	size_t next = (line * 21 + 17) % LINES;

	if (!next)
		page = (page + part->page_step) % part->n_pages;
	return (uintptr_t)page_at(part, page) + next * LINE;
}

static uint64_t stamp_of(const struct part *part, size_t page)
{
	return (((uint64_t)part->number << 40) + page + 1) * GOLDEN;
}

static void fill(const struct part *part, size_t page)
{
	uint64_t *words = (uint64_t *)page_at(part, page);

	words[2] = stamp_of(part, page);
	for (size_t line = 0; line < LINES; line++)
		words[line * WORDS] = link_of(part, page, line);
	part->n_writes[page] = 0;
}

static bool touch_from(const struct part *part, const struct touch *touch, int place)
{
	size_t cycle = 0, begin = 0;

	for (int i = 0; i < touch->n_places; i++) {
		if (i == place)
			begin = cycle;
		cycle += touch->places[i].n_pages;
	}
	if (!run_on(touch->places[place].cpu))
		return false;
	for (; begin < part->n_pages; begin += cycle)
		for (size_t i = 0; i < touch->places[place].n_pages && begin + i < part->n_pages; i++)
			fill(part, begin + i);
	return true;
}

static size_t rounded_up(size_t bytes, size_t to)
{
	return (bytes + to - 1) / to * to;
}

static void *map(size_t bytes, int flags)
{
	void *found = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	return found == MAP_FAILED ? NULL : found;
}

/* Base pages, whatever this machine makes of others, from a multiple of HUGE on: no two parts share a huge page. */
static char *map_base(size_t bytes)
{
	size_t room = rounded_up(bytes, HUGE) + HUGE, before;
	char *found = map(room, MAP_NORESERVE);

	if (!found)
		return NULL;
	before = -(uintptr_t)found % HUGE;
	if ((before && munmap(found, before)) ||
	    munmap(found + before + rounded_up(bytes, PAGE), room - before - rounded_up(bytes, PAGE)) ||
	    madvise(found + before, bytes, MADV_NOHUGEPAGE))
		return NULL;
	return found + before;
}

bool part_make(struct part *part, size_t bytes, const struct touch *touch)
{
	size_t count_bytes = rounded_up(bytes / PAGE * sizeof(*part->n_writes), PAGE);

	part->n_pages = bytes / PAGE;
	part->page_step = step_through(part->n_pages);
	if (part->is_huge) {
		part->n_writes = map(count_bytes, 0);
		part->memory = map(rounded_up(bytes, HUGE), MAP_HUGETLB);
	} else {
		part->n_writes = (uint32_t *)map_base(count_bytes + bytes);
		part->memory = part->n_writes ? (char *)part->n_writes + count_bytes : NULL;
	}
	if (!part->memory || !part->n_writes)
		return false;
	for (int place = 0; place < touch->n_places; place++)
		if (!touch_from(part, touch, place))
			return false;
	return true;
}

uint64_t part_scan(struct part *part, size_t page)
{
	uint64_t sum = 0;

	for (uint64_t *line = (uint64_t *)page_at(part, page), *end = line + LINES * WORDS; line < end;) {
		line[1]++;
		for (int i = 0; i < WRITES_EVERY; i++, line += WORDS)
			sum += line[0];
	}
	part->n_writes[page]++;
	return sum;
}

uint64_t part_read(const struct part *part, size_t page)
{
	uint64_t sum = 0;

	for (uint64_t *line = (uint64_t *)page_at(part, page), *end = line + LINES * WORDS; line < end; line += WORDS)
		sum += line[0];
	return sum;
}

void part_follow(struct part *part, char **line, bool writes)
{
	uint64_t *at = (uint64_t *)*line;

	if (writes)
		part->n_writes[(*line - part->memory) / PAGE]++;
	for (size_t i = 0; i < LINES; i++) {
		if (writes && (uintptr_t)at % (WRITES_EVERY * LINE) == 0)
			at[1]++;
		at = (uint64_t *)at[0];
	}
	*line = (char *)at;
}

const uint64_t *part_find_wrong(const struct part *part, uint64_t *ret)
{
	for (size_t page = 0; page < part->n_pages; page++)
		for (size_t line = 0; line < LINES; line++) {
			const uint64_t *words = (const uint64_t *)page_at(part, page) + line * WORDS;
			const pair *pairs = (const pair *)words;
			const uint64_t want[WORDS] = {
				link_of(part, page, line),
				line % WRITES_EVERY ? 0 : part->n_writes[page],
				line ? 0 : stamp_of(part, page),
			};
			pair wrong = (pairs[0] ^ (pair){ want[0], want[1] }) | (pairs[1] ^ (pair){ want[2], 0 }) |
				     pairs[2] | pairs[3];

			if (!(wrong[0] | wrong[1]))
				continue;
			for (size_t i = 0; i < WORDS; i++)
				if (words[i] != want[i]) {
					*ret = want[i];
					return &words[i];
				}
		}
	return NULL;
}
