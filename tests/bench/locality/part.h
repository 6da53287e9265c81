/* SPDX-License-Identifier: MIT */
/*
 * A part: memory with a known content that is read and written cache line by cache line, and can be verified.
 *
 * Word 0 of each line points to the next line of a list, which leads through all pages, far from one to the next, and is
 * closed. Word 1 of each WRITES_EVERYth line counts how often it was written, word 2 of each page's first line tells which
 * page of which part it is, and all other words are 0.
 */
#ifndef PART_H
#define PART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096ul
#define LINE 64ul
#define LINES (PAGE / LINE)
#define WRITES_EVERY 8
#define MAX_PLACES 8

/* Where pages are touched: so many on the first CPU, so many on the next, and so on, again and again. */
struct touch {
	int n_places;
	struct {
		int cpu;
		size_t n_pages;
	} places[MAX_PLACES];
};

struct part {
	char *memory;
	size_t n_pages, page_step;
	uint32_t *n_writes; /* by page; right before the memory, as what an allocator keeps, but for huge pages */
	uint32_t number; /* no other part of the load has it */
	bool is_huge;
};

/* Both return false, with errno set. */
bool run_on(int cpu);
bool part_make(struct part *part, size_t bytes, const struct touch *touch);

/* Read all lines of one page in their order, and write to some. Returns what was read. */
uint64_t part_scan(struct part *part, size_t page);

/* Follow the list from *line for as many lines as a page has; each address comes out of the line before. */
void part_follow(struct part *part, char **line, bool writes);

/* The same without writing, for several threads at a time. */
uint64_t part_read(const struct part *part, size_t page);

/* Returns the first word that is wrong, and what it should be through `ret`; NULL when all are right. */
const uint64_t *part_find_wrong(const struct part *part, uint64_t *ret);

#endif
