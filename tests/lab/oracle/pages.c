// SPDX-License-Identifier: MIT
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "pages.h"

#define PAGE_BITS 12
#define LONGEST_PROBE 32

int pages_start(unsigned int n_nodes, struct pages *ret)
{
	ret->n_nodes = n_nodes;
	ret->lost = 0;
	ret->numbers = calloc(1u << PAGES_BITS, sizeof(*ret->numbers));
	ret->counts = calloc((size_t)n_nodes << PAGES_BITS, sizeof(*ret->counts));
	return ret->numbers && ret->counts ? 0 : -ENOMEM;
}

void pages_count(struct pages *pages, uint64_t address, unsigned int node)
{
	uint64_t wanted = (address >> PAGE_BITS) + 1;
	uint64_t slot = (wanted * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - PAGES_BITS);

	for (int i = 0; i < LONGEST_PROBE; i++, slot = (slot + 1) & ((1u << PAGES_BITS) - 1)) {
		uint64_t found = __atomic_load_n(&pages->numbers[slot], __ATOMIC_RELAXED);

		if (!found && __atomic_compare_exchange_n(&pages->numbers[slot], &found, wanted, 0, __ATOMIC_RELAXED,
							  __ATOMIC_RELAXED))
			found = wanted; /* else it holds what another CPU has put there */
		if (found == wanted) {
			__atomic_fetch_add(&pages->counts[slot * pages->n_nodes + node], 1, __ATOMIC_RELAXED);
			return;
		}
	}
	__atomic_fetch_add(&pages->lost, 1, __ATOMIC_RELAXED);
}

void pages_write(const struct pages *pages, FILE *file)
{
	for (size_t slot = 0; slot < 1u << PAGES_BITS; slot++) {
		if (!pages->numbers[slot])
			continue;
		fprintf(file, "page %" PRIx64, pages->numbers[slot] - 1);
		for (unsigned int node = 0; node < pages->n_nodes; node++)
			fprintf(file, " %" PRIu32, pages->counts[slot * pages->n_nodes + node]);
		fputc('\n', file);
	}
}
