/* SPDX-License-Identifier: MIT */
/* What must hold of a table of accesses at any time, whatever was counted. */
#ifndef BALANCERD_FUZZ_TABLE_H
#define BALANCERD_FUZZ_TABLE_H

#include "access.h"
#include "fuzz.h"

#define HIGHEST_WEIGHT (50 * BAL_ACCESS_UNIT)

static inline void check_table(const struct bal_access_table *table)
{
	uint64_t pages = 0;

	for (uint64_t i = 0; i < table->capacity; i++) {
		const struct bal_access_cell *cell = bal_access_cell(table, i);

		if (!cell->key)
			continue;
		pages++;
		MUST(bal_access_find(table, cell->key) == cell); /* so none is there twice, or cut off from its home */
		for (uint32_t slot = 0; slot < table->n_slots; slot++)
			MUST(cell->weight[slot] <= HIGHEST_WEIGHT);
	}
	MUST(pages == table->pages);
	MUST(table->taken == table->counted + table->touches + table->unknown_cpus);
}

#endif
