// SPDX-License-Identifier: MIT
/*
 * What QEMU calls an access's address has changed. Before 8.2 it is where the block of RAM lies among all blocks, plus
 * the offset within the block, plus where the block lies in the machine's memory: for the memory of a node, which
 * follows the nodes before it in both, twice its start plus the offset. Since 8.2 it is the guest-physical address.
 */
#include <pthread.h>
#include <string.h>

#include "cache.h"
#include "memory.h"

#define ABOVE_HOLE (4ull << 30)
#define LARGER_THAN_ROM (1ull << 20)

enum { NOT_KNOWN, RAM, PHYSICAL };

static pthread_mutex_t learning = PTHREAD_MUTEX_INITIALIZER;

static void add_physical(struct memory *memory, uint64_t start, uint64_t base, uint64_t bytes, unsigned int node)
{
	memory->by_physical[memory->n_by_physical++] =
		(struct range){ .start = start, .bytes = bytes, .first_line = base >> LINE_BITS, .node = node };
}

void memory_lay_out(const uint64_t *node_bytes, unsigned int n_nodes, uint64_t low_bytes, struct memory *ret)
{
	uint64_t base = 0;

	memset(ret, 0, sizeof(*ret));
	for (unsigned int node = 0; node < n_nodes; node++) {
		uint64_t bytes = node_bytes[node], end = base + bytes;
		uint64_t low_end = end < low_bytes ? end : low_bytes;
		uint64_t high_start = base > low_bytes ? base : low_bytes;

		ret->by_ram[ret->n_by_ram++] = (struct range){
			.start = 2 * base, .bytes = bytes, .first_line = base >> LINE_BITS, .node = node
		};
		if (base < low_end)
			add_physical(ret, base, base, low_end - base, node);
		if (high_start < end)
			add_physical(ret, high_start - low_bytes + ABOVE_HOLE, high_start, end - high_start, node);
		base = end;
	}
}

/*
 * A ROM's address may look like one of a node: its block comes after all memory, and that sum is not unique. So where a
 * node's memory lies on the host is sure only when two accesses tell the same, further apart than any ROM is long.
 */
static void learn(struct range *range, uint64_t host, uint64_t offset)
{
	pthread_mutex_lock(&learning);
	if (!range->host_bytes && range->maybe_host == host - offset) {
		uint64_t apart = offset > range->maybe_offset ? offset - range->maybe_offset : range->maybe_offset - offset;

		if (apart >= LARGER_THAN_ROM) {
			range->host = range->maybe_host;
			__atomic_store_n(&range->host_bytes, range->bytes, __ATOMIC_RELEASE);
		}
	} else {
		range->maybe_host = host - offset;
		range->maybe_offset = offset;
	}
	pthread_mutex_unlock(&learning);
}

struct range *memory_find(struct memory *memory, struct qemu_plugin_hwaddr *where, uint64_t *offset)
{
	uint64_t address = qemu_plugin_hwaddr_phys_addr(where), word = memory_word(where);
	int addresses = __atomic_load_n(&memory->addresses, __ATOMIC_RELAXED);

	if (addresses == NOT_KNOWN) {
		addresses = word == address ? PHYSICAL : RAM;
		__atomic_store_n(&memory->addresses, addresses, __ATOMIC_RELAXED);
	}
	struct range *ranges = addresses == RAM ? memory->by_ram : memory->by_physical;
	unsigned int n_ranges = addresses == RAM ? memory->n_by_ram : memory->n_by_physical;

	for (unsigned int i = 0; i < n_ranges; i++) {
		*offset = address - ranges[i].start;
		if (*offset < ranges[i].bytes) {
			if (addresses == RAM && !__atomic_load_n(&ranges[i].host_bytes, __ATOMIC_RELAXED))
				learn(&ranges[i], word, *offset);
			return &ranges[i];
		}
	}
	return NULL;
}
