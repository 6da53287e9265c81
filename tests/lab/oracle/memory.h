/* SPDX-License-Identifier: MIT */
/* Which node's memory an access hits. Owns what is known of the guest's memory in QEMU; knows no CPU and no count. */
#ifndef ORACLE_MEMORY_H
#define ORACLE_MEMORY_H

#include <stdint.h>

#include "qemu_plugin.h"

#define MAX_NODES 16

/* A part of a node's memory that QEMU gives consecutive addresses. */
struct range {
	uint64_t start;
	uint64_t bytes;
	uint64_t first_line; /* of all memory, node after node */
	unsigned int node;
	/* where it lies in QEMU itself, once that is sure; see memory_find() */
	uint64_t host;
	uint64_t host_bytes;
	uint64_t maybe_host;
	uint64_t maybe_offset;
};

struct memory {
	struct range by_ram[MAX_NODES];
	struct range by_physical[MAX_NODES + 1];
	unsigned int n_by_ram;
	unsigned int n_by_physical;
	int addresses; /* enum in memory.c */
};

/* `low_bytes` of the memory are below the hole that the machine leaves for devices, the rest starts at 4 GiB. */
void memory_lay_out(const uint64_t *node_bytes, unsigned int n_nodes, uint64_t low_bytes, struct memory *ret);

/* The range of an access and the offset in it by asking QEMU, or NULL: firmware. Learns for memory_find_quickly(). */
struct range *memory_find(struct memory *memory, struct qemu_plugin_hwaddr *where, uint64_t *offset);

/*
 * The second word of what QEMU hands out: the host's address of the access before 8.2, the guest-physical one since.
 * Asking for the address properly costs a walk through all blocks of memory before 8.2, at each access.
 */
static inline uint64_t memory_word(const struct qemu_plugin_hwaddr *where)
{
	return ((const uint64_t *)where)[1];
}

/* The same from what has been learned, starting at range `*hint`; NULL when that is not enough. */
static inline struct range *memory_find_quickly(struct memory *memory, const struct qemu_plugin_hwaddr *where,
						unsigned int *hint, uint64_t *offset)
{
	uint64_t host = memory_word(where);
	unsigned int at = *hint;

	for (unsigned int i = 0; i < memory->n_by_ram; i++) {
		struct range *range = &memory->by_ram[at];
		uint64_t bytes = __atomic_load_n(&range->host_bytes, __ATOMIC_ACQUIRE);

		if (__builtin_expect(host - range->host < bytes, 1)) {
			*hint = at;
			*offset = host - range->host;
			return range;
		}
		at = at + 1 < memory->n_by_ram ? at + 1 : 0;
	}
	return NULL;
}

#endif
