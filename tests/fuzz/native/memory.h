/* SPDX-License-Identifier: MIT */
/*
 * The memory of a process as move_pages(2) shows it, either consistent or as the input says at each question. Knows
 * mm/migrate.c, do_pages_stat() and add_folio_for_migration(); who moves what is each harness's affair.
 */
#ifndef BALANCERD_FUZZ_MEMORY_H
#define BALANCERD_FUZZ_MEMORY_H

#include <errno.h>
#include <stdarg.h>
#include <sys/syscall.h>

#include "fuzz.h"

#define FRAMES 1024
#define MEMORY_START UINT64_C(0x7f0000000000)
#define TARGET_PID 42
#define NODES 4

struct frame {
	int16_t status; /* its node, or -errno */
	uint16_t head;	/* the first frame of its folio */
	uint16_t pages; /* of its folio */
	uint8_t is_pinned;
	uint8_t is_isolated;
};

struct memory {
	struct frame frame[FRAMES];
	struct input *in; /* what is left of the input answers */
	int is_wild;	  /* answers need not fit together */
	int fails_at;	  /* the call that fails, -1: none */
	int failure;
	int calls;
	int has_failed_query;
};

static struct memory memory;

static inline int is_mapped(uint64_t address)
{
	return address >= MEMORY_START && address < MEMORY_START + FRAMES * PAGE;
}

static inline struct frame *frame_at(const void *page)
{
	uint64_t address = (uint64_t)(uintptr_t)page;

	MUST(address % PAGE == 0 && is_mapped(address));
	return &memory.frame[(address - MEMORY_START) / PAGE];
}

/* Folios side by side, of so many pages at most; what is absent or in error has a frame of its own. */
static inline void make_memory(struct input *in, size_t most_pages)
{
	static const int16_t errors[] = { -ENOENT, -EFAULT, -EACCES, -EIO };
	size_t at = 0;

	while (at < FRAMES) {
		uint8_t what = eat_byte(in), repeat = eat_byte(in);
		size_t pages = UINT64_C(1) << (what >> 2 & 7); /* 1 to 128 */

		if (what >= 0xe0 || pages > most_pages)
			pages = 1;
		for (size_t folio = 0; folio <= repeat % 16u && at < FRAMES; folio++) {
			size_t here = at % pages ? 1 : pages, head = at;

			for (; at < head + here && at < FRAMES; at++)
				memory.frame[at] = (struct frame){
					.status = what >= 0xe0 ? errors[what % 4] : (int16_t)(what % NODES),
					.head = (uint16_t)head,
					.pages = (uint16_t)here,
					.is_pinned = repeat >= 0xf0,
				};
		}
	}
}

static inline void begin_memory(struct input *in, size_t most_pages)
{
	uint8_t mode = eat_byte(in), call = eat_byte(in);

	memset(&memory, 0, sizeof(memory));
	memory.in = in;
	memory.is_wild = mode & 1;
	memory.fails_at = call < 0xc0 ? -1 : call - 0xc0;
	memory.failure = mode & 2 ? ESRCH : mode & 4 ? EPERM : ENOMEM;
	make_memory(in, most_pages);
}

static inline int wild_status(void)
{
	static const int statuses[] = { 0, 1, 2, 3, BAL_NODES, INT32_MAX, -ENOENT, -EFAULT, -EBUSY, -1000, BAL_UNWRITTEN };
	uint8_t which = eat_byte(memory.in);

	return statuses[which < sizeof(statuses) / sizeof(*statuses) ? which : which % 4];
}

static inline int is_failing_call(void)
{
	return memory.calls++ == memory.fails_at;
}

/* move_pages(2) without nodes. */
static inline long answer_query(int pid, unsigned long n, void *const *pages, int *status)
{
	MUST(pid == TARGET_PID);
	if (is_failing_call()) {
		memory.has_failed_query = 1;
		errno = memory.failure;
		return -1;
	}
	for (unsigned long i = 0; i < n; i++) {
		MUST((uintptr_t)pages[i] % PAGE == 0);
		status[i] = memory.is_wild		 ? wild_status() :
			    is_mapped((uintptr_t)pages[i]) ? frame_at(pages[i])->status :
							   -EFAULT;
	}
	return 0;
}

#endif
