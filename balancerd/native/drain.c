// SPDX-License-Identifier: MIT
/*
 * From the records of perf's rings to accesses, with nothing kept but the last registers of each thread. Which mappings
 * count is the caller's affair.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include <sys/uio.h>

#include "access.h"
#include "data_src.h"
#include "decode.h"
#include "perf.h"
#include "ring.h"

#define BATCH 64
#define LONGEST_INSTRUCTION 15
#define BYTES_AHEAD 1024

struct draining {
	const struct bal_span *spans;
	size_t n_spans;
	uint64_t lowest, extent; /* of all spans together */
	struct bal_operand *operands;
	int pid;
	struct bal_access_table *table;
	struct bal_drain *ret;
	struct bal_access batch[BATCH + BAL_REGISTERS];
	uint64_t home[BATCH + BAL_REGISTERS]; /* where the cell of each is, which is on its way */
	size_t n;
	uint64_t until_ns; /* from when on a ring was full */
	int first_is_touch;
};

static void flush(struct draining *d)
{
	bal_access_count(d->batch, d->home, d->n, d->first_is_touch, d->table);
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

/* The bytes around an address of the process, as many before it as can be had; how many those are, or -1. */
static int read_code(struct draining *d, uint64_t ip, uint8_t *code)
{
	uint64_t of_page = ip % BAL_PAGE_BYTES, before = BAL_CODE_BEFORE;
	struct iovec here = { code, BAL_CODE_BEFORE + LONGEST_INSTRUCTION };
	struct iovec there = { (void *)(uintptr_t)(ip - before), here.iov_len };

	d->ret->code_reads++;
	memset(code, 0, here.iov_len);
	if (process_vm_readv(d->pid, &here, 1, &there, 1, 0) >= (ssize_t)before)
		return (int)before;
	before = of_page < before ? of_page : before; /* the page before it may be none */
	there.iov_base = (void *)(uintptr_t)(ip - before);
	here.iov_len = there.iov_len = before + LONGEST_INSTRUCTION;
	return process_vm_readv(d->pid, &here, 1, &there, 1, 0) > (ssize_t)before ? (int)before : -1;
}

/*
 * The operand of the instruction before an address, or else of the one there; or NULL. An interrupt comes between two
 * instructions, and when one waits for memory, then mostly right after that one.
 */
static const struct bal_operand *operand_at(struct draining *d, uint64_t ip)
{
	struct bal_operand *operand = &d->operands[ip * UINT64_C(0x9e3779b97f4a7c15) >> 54];
	uint8_t code[BAL_CODE_BEFORE + LONGEST_INSTRUCTION];
	int before;

	_Static_assert(BAL_OPERANDS == 1 << (64 - 54), "the shift takes as many bits as there are places");
	if (operand->ip != ip) {
		before = read_code(d, ip, code);
		if (before < 0) {
			operand->is_known = 0;
		} else if (bal_decode_last(code, (size_t)before, operand) || !operand->is_known || operand->is_lost) {
			if (bal_decode(code + before, LONGEST_INSTRUCTION, operand))
				operand->is_known = 0;
		}
		operand->ip = ip;
	}
	return operand->is_known ? operand : NULL;
}

/* One more access; what fetching its cell takes passes while those before it are found and counted. */
static void put(struct draining *d, const struct bal_access *access)
{
	d->home[d->n] = bal_access_home_of(d->table, access->address);
	bal_access_fetch(d->table, d->home[d->n]);
	d->batch[d->n++] = *access;
}

/* One page of a sample, unless the sample has it already. */
static void add(struct draining *d, size_t began, const struct bal_access *access)
{
	while (began < d->n && (d->batch[began].address ^ access->address) >> BAL_PAGE_SHIFT)
		began++;
	if (began < d->n)
		return;
	put(d, access);
}

/* The address that the program accesses where the sample found it; returns a bit for each register that it is made of. */
static uint32_t take_operand(struct draining *d, struct bal_access *access, const struct bal_registers_sample *sample)
{
	const struct bal_operand *operand;

	if ((sample->header.misc & PERF_RECORD_MISC_CPUMODE_MASK) != PERF_RECORD_MISC_USER)
		return 0;
	operand = operand_at(d, sample->ip);
	if (!operand)
		return 0;
	access->address = bal_operand_address(operand, sample->value);
	if (!is_in_spans(d, access->address))
		return 0;
	d->ret->exact++;
	add(d, d->n, access);
	return (operand->base < 0 ? 0 : UINT32_C(1) << operand->base) |
	       (operand->index < 0 ? 0 : UINT32_C(1) << operand->index);
}

static void take_registers(struct draining *d, struct bal_ring *ring, const struct bal_registers_sample *sample)
{
	struct bal_access access = { .time_ns = sample->time_ns, .tid = sample->tid, .cpu = sample->cpu };
	uint64_t lowest = d->lowest, extent = d->extent;
	size_t began = d->n;
	uint32_t used = d->operands ? take_operand(d, &access, sample) : 0, candidates = 0;
	int repeated = 0;

#pragma GCC unroll 32
	for (int i = BAL_REGISTERS_HERE; i-- > 0;) /* mostly small numbers and places on the stack */
		candidates += candidates + (sample->value[i] - lowest < extent);
	for (; candidates; candidates &= candidates - 1) {
		int i = __builtin_ctz(candidates);

		access.address = sample->value[i];
		if (!is_in_spans(d, access.address))
			continue;
		if (is_repeated(ring, access.address))
			repeated = 1;
		else if (!(used >> i & 1))
			add(d, began, &access);
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
	put(d, &(struct bal_access){
		.address = sample->address, .time_ns = sample->time_ns, .tid = sample->tid, .cpu = sample->cpu });
}

static int is_of_guest(const struct perf_event_header *header)
{
	unsigned int mode = header->misc & PERF_RECORD_MISC_CPUMODE_MASK;

	return mode == PERF_RECORD_MISC_GUEST_USER || mode == PERF_RECORD_MISC_GUEST_KERNEL;
}

static void take_memory(struct draining *d, const struct bal_memory_sample *sample, int has_frame)
{
	union perf_mem_data_src src = { .val = sample->data_src };
	int is_load = (src.mem_op & PERF_MEM_OP_LOAD) != 0, is_store = (src.mem_op & PERF_MEM_OP_STORE) != 0;
	enum bal_level level = is_load ? bal_load_level(src) : bal_store_level(src);

	d->ret->stores += is_store && !is_load;
	d->ret->framed += has_frame && sample->frame;
	if (!sample->address || !(is_load || is_store)) {
		d->ret->no_address++;
	} else if (level == BAL_NEAR) {
		d->ret->near++;
	} else if (level == BAL_FAR) {
		d->ret->far++;
	} else if (is_of_guest(&sample->header) || !is_in_spans(d, sample->address)) {
		d->ret->elsewhere++;
	} else {
		d->ret->with_access++;
		d->ret->accesses++;
		d->ret->cycles += sample->cycles;
		put(d, &(struct bal_access){
			.address = sample->address, .time_ns = sample->time_ns, .tid = sample->tid, .cpu = sample->cpu });
	}
}

static int take_sample(struct draining *d, struct bal_ring *ring, const struct perf_event_header *header)
{
	const struct bal_registers_sample *sample = (const struct bal_registers_sample *)header;
	size_t without = offsetof(struct bal_registers_sample, value);

	if (ring->kind == BAL_RING_FAULTS) {
		if (header->size != sizeof(struct bal_fault_sample))
			return -EBADMSG;
		take_fault(d, (const struct bal_fault_sample *)header);
	} else if (ring->kind == BAL_RING_MEMORY) {
		if (header->size != sizeof(struct bal_memory_sample) &&
		    header->size != offsetof(struct bal_memory_sample, frame))
			return -EBADMSG;
		take_memory(d, (const struct bal_memory_sample *)header,
			    header->size == sizeof(struct bal_memory_sample));
	} else if (header->size == without && sample->abi == PERF_SAMPLE_REGS_ABI_NONE) {
		d->ret->no_registers++;
	} else if (header->size == BAL_REGISTERS_BYTES) {
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
	char *data = bal_ring_data(ring);
	uint64_t head = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE), tail = page->data_tail;
	union {
		struct perf_event_header header;
		char bytes[sizeof(struct bal_registers_sample)];
	} whole; /* of a record that goes round the end of the ring */

	while (tail < head) {
		uint64_t at = tail & (ring->data_bytes - 1), before_end = ring->data_bytes - at;
		const struct perf_event_header *header = (const struct perf_event_header *)(data + at);
		uint64_t size; /* of multiples of 8 bytes: a header is never cut in two */

		for (uint64_t line = 0; line < BAL_REGISTERS_BYTES; line += 64) /* another CPU wrote it */
			__builtin_prefetch(data + ((tail + BYTES_AHEAD + line) & (ring->data_bytes - 1)));
		size = header->size;
		if (size < sizeof(*header) || size % 8 || size > head - tail) {
			d->ret->foreign++;
			break;
		}
		if (d->until_ns != UINT64_MAX && header->type == PERF_RECORD_SAMPLE &&
		    bal_ring_time(ring, tail) > d->until_ns) {
			d->ret->cut++;
			tail += size;
			continue;
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

int bal_rings_drain(struct bal_ring *rings, size_t n_rings, const struct bal_span *spans, size_t n_spans, int pid,
		    struct bal_operand *operands, struct bal_access_table *table, struct bal_drain *ret)
{
	struct draining d = { .spans = spans, .n_spans = n_spans, .pid = pid, .table = table, .ret = ret,
			      .until_ns = UINT64_MAX };
	double began = bal_now_seconds();

	memset(ret, 0, sizeof(*ret));
	if (n_spans) {
		d.lowest = spans[0].start;
		d.extent = spans[n_spans - 1].end - d.lowest;
	}
#ifdef __x86_64__
	d.operands = operands;
	if (operands) /* programs may write themselves anew */
		memset(operands, 0, BAL_OPERANDS * sizeof(*operands));
#endif
	for (size_t i = 0; i < n_rings; i++) {
		uint64_t end = rings[i].map ? bal_ring_end(&rings[i]) : UINT64_MAX;

		d.until_ns = end < d.until_ns ? end : d.until_ns;
	}
	for (size_t i = 0; i < n_rings; i++) {
		uint64_t before = ret->samples + ret->lost + ret->cut, came;

		if (!rings[i].map)
			continue;
		if (d.first_is_touch != rings[i].first_is_touch)
			flush(&d);
		d.first_is_touch = rings[i].first_is_touch;
		drain(&d, &rings[i]);
		came = ret->samples + ret->lost + ret->cut - before;
		ret->busiest = came > ret->busiest ? came : ret->busiest;
	}
	flush(&d);
	ret->seconds = bal_now_seconds() - began;
	return 0;
}
