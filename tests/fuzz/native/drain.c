// SPDX-License-Identifier: MIT
/* Rings of perf's records, and the code of the program that they speak of: bal_rings_drain(). */
#include <errno.h>
#include <sys/uio.h>

#include "fuzz.h"
#include "perf.h"
#include "ring.h"
#include "table.h"

#define MOST_RINGS 3
#define MOST_SPANS 3
#define CELLS_BYTES 2048
#define NO_CODE 8

static struct input code;

/* The process has code everywhere but in one page of eight. */
ssize_t answer_process_vm_readv(pid_t pid, const struct iovec *here, unsigned long n_here, const struct iovec *there,
				unsigned long n_there, unsigned long flags)
{
	uint64_t from = (uint64_t)(uintptr_t)there->iov_base, to = from + there->iov_len;
	size_t n = there->iov_len;

	MUST(pid == 42 && n_here == 1 && n_there == 1 && !flags && here->iov_len >= n);
	if (from / PAGE % NO_CODE == 0) {
		errno = EFAULT;
		return -1;
	}
	if (to / PAGE % NO_CODE == 0)
		n -= to % PAGE;
	eat(&code, here->iov_base, n);
	return (ssize_t)n;
}

static uint16_t length_of(uint8_t shape, uint16_t any)
{
	static const uint16_t lengths[] = {
		BAL_REGISTERS_BYTES,
		offsetof(struct bal_registers_sample, value),
		sizeof(struct bal_fault_sample),
		sizeof(struct bal_memory_sample),
		offsetof(struct bal_memory_sample, frame),
		sizeof(struct bal_lost_record),
		sizeof(struct perf_event_header),
	};
	size_t which = shape % 8;

	return which < 7 ? lengths[which] : any;
}

/* Records one behind the other up to the head, the last one cut; of registers, some may point into a span. */
static void write_records(struct input *in, struct bal_ring *ring, uint64_t tail, uint64_t head)
{
	static const uint32_t types[] = { PERF_RECORD_SAMPLE, PERF_RECORD_SAMPLE, PERF_RECORD_SAMPLE, PERF_RECORD_LOST,
					  PERF_RECORD_THROTTLE, PERF_RECORD_UNTHROTTLE, PERF_RECORD_EXIT };
	char *to = bal_ring_data(ring);

	while (tail < head) {
		uint8_t shape = eat_byte(in), type = eat_byte(in);
		union {
			struct perf_event_header header;
			uint64_t word[64];
		} record = { .header = { .type = type < 7 ? types[type] : type < 128 ? PERF_RECORD_SAMPLE : type, .misc = shape >> 5,
					 .size = length_of(shape, eat_byte(in)) } };
		uint64_t n = record.header.size;

		for (size_t i = 1; i < n / 8 && i < 64; i++)
			record.word[i] = eat_number(in);
		if (record.header.type == PERF_RECORD_LOST)
			record.word[2] &= UINT32_MAX;
		n = (n + 7) / 8 * 8;
		n = n < 8 ? 8 : n;
		for (uint64_t at = 0; at < n && tail + at < head; at += 8)
			memcpy(to + ((tail + at) & (ring->data_bytes - 1)), &record.word[at / 8 % 64], 8);
		tail += n;
	}
}

static void make_ring(struct input *in, struct bal_ring *ring)
{
	uint8_t shape = eat_byte(in);
	uint64_t data_bytes = UINT64_C(256) << (shape >> 6 & 3), tail = eat_byte(in) * 8u, used = eat_short(in) / 8 * 8;
	struct perf_event_mmap_page *page;

	memset(ring, 0, sizeof(*ring));
	ring->fd = -1;
	ring->kind = shape % 3;
	ring->first_is_touch = shape >> 2 & 1;
	if (shape >> 3 & 1)
		return;
	ring->data_bytes = data_bytes;
	ring->map_bytes = sizeof(*page) + data_bytes;
	ring->map = exactly(ring->map_bytes);
	memset(ring->map, 0, ring->map_bytes);
	page = ring->map;
	page->data_tail = tail;
	page->data_head = tail + (used < data_bytes ? used : data_bytes);
	write_records(in, ring, tail, page->data_head);
}

static size_t make_spans(struct input *in, struct bal_span *spans)
{
	size_t n = eat_byte(in) % (MOST_SPANS + 1);
	uint64_t at = 0;

	for (size_t i = 0; i < n; i++) {
		spans[i].start = at + eat_number(in) % (UINT64_C(1) << 40);
		spans[i].end = spans[i].start + 1 + eat_number(in) % (UINT64_C(1) << 40);
		at = spans[i].end;
	}
	return n;
}

static void check(const struct bal_ring *rings, size_t n, const struct bal_access_table *table, const struct bal_drain *told)
{
	MUST(told->samples == told->with_access + told->elsewhere + told->repeated + told->no_registers +
				      told->no_address + told->near + told->far);
	MUST(told->accesses == table->taken && told->exact <= told->accesses && told->accesses >= told->with_access);
	MUST(told->in_kernel <= told->samples && told->stores <= told->samples && told->framed <= told->samples);
	MUST(told->busiest <= told->samples + told->lost + told->cut);
	for (size_t i = 0; i < n; i++) {
		const struct perf_event_mmap_page *page = rings[i].map;

		MUST(!page || page->data_tail == page->data_head);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const int8_t slot_of_cpu[] = { 0, 1, 2, -1, 0, 1 };
	struct input in = { data, size };
	size_t n_rings = 1 + eat_byte(&in) % MOST_RINGS, n_spans;
	struct bal_span *spans = exactly(MOST_SPANS * sizeof(*spans));
	struct bal_operand *operands = eat_byte(&in) % 4 ? exactly(BAL_OPERANDS * sizeof(*operands)) : NULL;
	struct bal_ring *rings = exactly(n_rings * sizeof(*rings));
	void *memory = calloc(1, CELLS_BYTES);
	struct bal_access_table table;
	struct bal_drain told;
	uint8_t text[512] = { 0 };

	eat(&in, text, eat_byte(&in) * 2u);
	code = (struct input){ text, sizeof(text) };
	n_spans = make_spans(&in, spans);
	for (size_t i = 0; i < n_rings; i++)
		make_ring(&in, &rings[i]);
	MUST(bal_access_start(memory, CELLS_BYTES, 3, slot_of_cpu, sizeof(slot_of_cpu), &table) == 0);
	MUST(bal_rings_drain(rings, n_rings, spans, n_spans, 42, operands, &table, &told) == 0);
	check(rings, n_rings, &table, &told);
	check_table(&table);
	for (size_t i = 0; i < n_rings; i++)
		free(rings[i].map);
	free(rings);
	free(spans);
	free(operands);
	free(memory);
	return 0;
}
