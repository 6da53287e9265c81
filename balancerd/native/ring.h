/* SPDX-License-Identifier: MIT */
/* Where the records of a ring are, and until when it had room for them: of drain.c. */
#ifndef BALANCERD_NATIVE_RING_H
#define BALANCERD_NATIVE_RING_H

#include <stddef.h>
#include <stdint.h>

#include "perf.h"

#define BAL_REGISTERS_BYTES \
	(offsetof(struct bal_registers_sample, value) + (size_t)BAL_REGISTERS_HERE * sizeof(uint64_t))

static inline char *bal_ring_data(const struct bal_ring *ring)
{
	return (char *)ring->map + (ring->map_bytes - ring->data_bytes);
}

/* The time of the sample at an offset, a multiple of 8 that may go round. */
static inline uint64_t bal_ring_time(const struct bal_ring *ring, uint64_t at)
{
	size_t offset = ring->kind == BAL_RING_REGISTERS ? offsetof(struct bal_registers_sample, time_ns) :
							   offsetof(struct bal_memory_sample, time_ns);

	return *(const uint64_t *)(bal_ring_data(ring) + ((at + offset) & (ring->data_bytes - 1)));
}

/* Whether one more sample has no room (kernel/events/ring_buffer.c, __perf_output_begin). */
static inline int bal_ring_is_full(const struct bal_ring *ring, uint64_t head, uint64_t tail)
{
	size_t bytes = ring->kind == BAL_RING_REGISTERS ? BAL_REGISTERS_BYTES : sizeof(struct bal_memory_sample);

	return ring->kind != BAL_RING_FAULTS && ring->data_bytes - (head - tail) <= bytes;
}

/* The time of the last sample of a ring that is full; of one with room, never. */
static inline uint64_t bal_ring_end(const struct bal_ring *ring)
{
	const struct perf_event_mmap_page *page = ring->map;
	uint64_t head = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE), tail = page->data_tail, last = UINT64_MAX;

	if (!bal_ring_is_full(ring, head, tail))
		return UINT64_MAX;
	while (tail < head) {
		const struct perf_event_header *header =
			(const struct perf_event_header *)(bal_ring_data(ring) + (tail & (ring->data_bytes - 1)));

		if (header->size < sizeof(*header) || header->size % 8)
			break;
		if (header->type == PERF_RECORD_SAMPLE)
			last = bal_ring_time(ring, tail);
		tail += header->size;
	}
	return last;
}

#endif
