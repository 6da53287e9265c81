// SPDX-License-Identifier: MIT
/*
 * From the records of perf's rings to accesses, with nothing kept but the last registers of each thread. Which mappings
 * count is the caller's affair.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "access.h"
#include "perf.h"

#define BATCH 64

struct draining {
	const struct bal_span *spans;
	size_t n_spans;
	uint64_t lowest, extent; /* of all spans together */
	struct bal_access_table *table;
	struct bal_drain *ret;
	struct bal_access batch[BATCH + BAL_REGISTERS];
	size_t n;
	int first_is_touch;
};

static void flush(struct draining *d)
{
	bal_access_add(d->batch, d->n, d->first_is_touch, d->table);
	d->n = 0;
}

static int is_in_spans(const struct draining *d, uint64_t address)
{
	const struct bal_span *span = d->spans;
	size_t n = d->n_spans;

	if (address - d->lowest >= d->extent)
		return 0;
	while (n > 1) { /* the last span that starts at the address or below it */
		size_t half = n / 2;

		span += span[half].start <= address ? half : 0;
		n -= half;
	}
	return address >= span->start && address < span->end;
}

/*
 * Whether a value was seen lately. Two places for each hash: the second for what is new, the first for what was seen
 * again, which only another such value drives out: so the start of an array stays known whatever else comes by.
 */
static int is_repeated(struct bal_ring *ring, uint64_t value)
{
	uint64_t *place = &ring->recent[2 * (value * UINT64_C(0x9e3779b97f4a7c15) >> 59)];

	_Static_assert(BAL_RECENT == 2 << (64 - 59), "the shift takes as many bits as there are places");
	if (place[0] == value)
		return 1;
	if (place[1] == value) {
		place[1] = place[0];
		place[0] = value;
		return 1;
	}
	place[1] = value;
	return 0;
}

static void take_registers(struct draining *d, struct bal_ring *ring, const struct bal_registers_sample *sample)
{
	struct bal_access access = { .time_ns = sample->time_ns, .tid = sample->tid, .cpu = sample->cpu };
	uint32_t candidates = 0;
	size_t began = d->n;
	int repeated = 0;

	for (int i = 0; i < BAL_REGISTERS_HERE; i++) /* mostly small numbers and places on the stack */
		candidates |= (uint32_t)(sample->value[i] - d->lowest < d->extent) << i;
	for (; candidates; candidates &= candidates - 1) {
		size_t known = began;

		access.address = sample->value[__builtin_ctz(candidates)];
		if (!is_in_spans(d, access.address))
			continue;
		if (is_repeated(ring, access.address)) {
			repeated = 1;
			continue;
		}
		while (known < d->n && (d->batch[known].address ^ access.address) >> BAL_PAGE_SHIFT)
			known++;
		if (known == d->n) {
			bal_access_fetch(d->table, access.address);
			d->batch[d->n++] = access;
		}
	}
	d->ret->accesses += d->n - began;
	if (d->n > began)
		d->ret->with_access++;
	else if (repeated)
		d->ret->repeated++;
	else
		d->ret->elsewhere++;
}

static void take_fault(struct draining *d, const struct bal_fault_sample *sample)
{
	if (!is_in_spans(d, sample->address)) {
		d->ret->elsewhere++;
		return;
	}
	d->ret->with_access++;
	d->ret->accesses++;
	d->batch[d->n++] = (struct bal_access){
		.address = sample->address, .time_ns = sample->time_ns, .tid = sample->tid, .cpu = sample->cpu
	};
}

static int take_sample(struct draining *d, struct bal_ring *ring, const struct perf_event_header *header)
{
	const struct bal_registers_sample *sample = (const struct bal_registers_sample *)header;
	size_t without = offsetof(struct bal_registers_sample, value);

	if (ring->kind == BAL_RING_FAULTS) {
		if (header->size != sizeof(struct bal_fault_sample))
			return -EBADMSG;
		take_fault(d, (const struct bal_fault_sample *)header);
	} else if (header->size == without && sample->abi == PERF_SAMPLE_REGS_ABI_NONE) {
		d->ret->no_registers++;
	} else if (header->size == without + (size_t)BAL_REGISTERS_HERE * sizeof(uint64_t)) {
		take_registers(d, ring, sample);
	} else {
		return -EBADMSG;
	}
	d->ret->samples++;
	d->ret->in_kernel += (header->misc & PERF_RECORD_MISC_CPUMODE_MASK) == PERF_RECORD_MISC_KERNEL;
	if (d->n >= BATCH)
		flush(d);
	return 0;
}

static int take_record(struct draining *d, struct bal_ring *ring, const struct perf_event_header *header)
{
	switch (header->type) {
	case PERF_RECORD_SAMPLE:
		return take_sample(d, ring, header);
	case PERF_RECORD_LOST:
		if (header->size < sizeof(struct bal_lost_record))
			return -EBADMSG;
		d->ret->lost += ((const struct bal_lost_record *)header)->lost;
		return 0;
	case PERF_RECORD_THROTTLE:
		d->ret->throttled++;
		return 0;
	case PERF_RECORD_UNTHROTTLE:
		d->ret->unthrottled++;
		return 0;
	default:
		return -EBADMSG;
	}
}

static void drain(struct draining *d, struct bal_ring *ring)
{
	struct perf_event_mmap_page *page = ring->map;
	char *data = (char *)ring->map + (ring->map_bytes - ring->data_bytes);
	uint64_t head = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE), tail = page->data_tail;
	union {
		struct perf_event_header header;
		char bytes[sizeof(struct bal_registers_sample)];
	} whole; /* of a record that goes round the end of the ring */

	while (tail < head) {
		uint64_t at = tail & (ring->data_bytes - 1), before_end = ring->data_bytes - at;
		const struct perf_event_header *header = (const struct perf_event_header *)(data + at);
		uint64_t size = header->size; /* of multiples of 8 bytes: a header is never cut in two */

		if (size < sizeof(*header) || size % 8 || size > head - tail) {
			d->ret->foreign++;
			break;
		}
		if (size > before_end && size <= sizeof(whole)) {
			memcpy(whole.bytes, header, before_end);
			memcpy(whole.bytes + before_end, data, size - before_end);
			header = &whole.header;
		}
		if (size > sizeof(whole) || take_record(d, ring, header))
			d->ret->foreign++;
		tail += size;
	}
	__atomic_store_n(&page->data_tail, head, __ATOMIC_RELEASE);
}

int bal_rings_drain(struct bal_ring *rings, size_t n_rings, const struct bal_span *spans, size_t n_spans,
		    struct bal_access_table *table, struct bal_drain *ret)
{
	struct draining d = { .spans = spans, .n_spans = n_spans, .table = table, .ret = ret };
	double began = bal_now_seconds();

	memset(ret, 0, sizeof(*ret));
	if (n_spans) {
		d.lowest = spans[0].start;
		d.extent = spans[n_spans - 1].end - d.lowest;
	}
	for (size_t i = 0; i < n_rings; i++) {
		if (!rings[i].map)
			continue;
		d.first_is_touch = rings[i].kind == BAL_RING_FAULTS;
		drain(&d, &rings[i]);
		flush(&d);
	}
	ret->seconds = bal_now_seconds() - began;
	return 0;
}
