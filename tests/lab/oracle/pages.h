/* SPDX-License-Identifier: MIT */
/* Accesses by virtual page and node of the CPU: a hash table that takes no lock and never grows. */
#ifndef ORACLE_PAGES_H
#define ORACLE_PAGES_H

#include <stdint.h>
#include <stdio.h>

#define PAGES_BITS 20 /* room for a million pages: 4 GiB */

struct pages {
	uint64_t *numbers; /* of each page plus 1; 0 is room. NULL: nothing is counted */
	uint32_t *counts;  /* a row of n_nodes for each */
	unsigned int n_nodes;
	uint64_t lost;
};

/* Returns 0 or -ENOMEM. */
int pages_start(unsigned int n_nodes, struct pages *ret);
void pages_count(struct pages *pages, uint64_t address, unsigned int node);
void pages_write(const struct pages *pages, FILE *file);

#endif
