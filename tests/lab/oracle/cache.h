/* SPDX-License-Identifier: MIT */
/*
 * The caches between a CPU and memory, without which a hot stack would count as much as a hot array. Each CPU has a
 * direct-mapped filter by virtual address, which nobody else's writes empty. Each node has an eight-way model of its
 * last-level cache by memory line, least recently used out first; a write takes the line out of the other nodes'.
 */
#ifndef ORACLE_CACHE_H
#define ORACLE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINE_BITS 6
#define LLC_WAYS 8

/* Whether the line of this address was there; it is from now on. */
static inline bool filter_hit(uint64_t *tags, uint64_t mask, uint64_t address)
{
	uint64_t line = address >> LINE_BITS;
	uint64_t *tag = &tags[line & mask];

	if (__builtin_expect(*tag == line + 1, 1))
		return true;
	*tag = line + 1;
	return false;
}

/*
 * The same for a node's cache; the line becomes the most recent. CPUs of one node race here without a lock: a tag may
 * get lost or be there twice, which costs or saves one access in millions.
 */
static inline bool llc_hit(uint32_t *tags, uint64_t set_mask, uint32_t line)
{
	uint32_t *set = tags + (line & set_mask) * LLC_WAYS;
	uint32_t tag = line + 1, displaced = set[0];

	if (displaced == tag)
		return true;
	set[0] = tag;
	for (int way = 1; way < LLC_WAYS; way++) {
		uint32_t next = set[way];

		set[way] = displaced;
		if (next == tag)
			return true;
		displaced = next;
	}
	return false;
}

static inline void llc_drop(uint32_t *tags, uint64_t set_mask, uint32_t line)
{
	uint32_t *set = tags + (line & set_mask) * LLC_WAYS;

	for (int way = 0; way < LLC_WAYS; way++)
		if (set[way] == line + 1)
			set[way] = 0;
}

#endif
