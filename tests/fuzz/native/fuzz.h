/* SPDX-License-Identifier: MIT */
/* What the harnesses share: an input that is eaten from its front, and what must hold. */
#ifndef BALANCERD_FUZZ_H
#define BALANCERD_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

#define PAGE ((uint64_t)BAL_PAGE_BYTES)

/* Ends the process when something does not hold that the core promises: the fuzzer keeps the input. */
#define MUST(holds)                                                                                  \
	do {                                                                                          \
		if (!(holds)) {                                                                       \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #holds); \
			abort();                                                                      \
		}                                                                                     \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *at;
	size_t n;
};

/* Up to so many bytes, zeros behind the end. */
static inline void eat(struct input *in, void *to, size_t n)
{
	size_t here = n < in->n ? n : in->n;

	memset(to, 0, n);
	if (!here)
		return;
	memcpy(to, in->at, here);
	in->at += here;
	in->n -= here;
}

static inline uint8_t eat_byte(struct input *in)
{
	uint8_t value;

	eat(in, &value, sizeof(value));
	return value;
}

static inline uint16_t eat_short(struct input *in)
{
	uint16_t value;

	eat(in, &value, sizeof(value));
	return value;
}

static inline uint64_t eat_long(struct input *in)
{
	uint64_t value;

	eat(in, &value, sizeof(value));
	return value;
}

/* A number of any size, mostly a small one. */
static inline uint64_t eat_number(struct input *in)
{
	uint8_t kind = eat_byte(in);

	return kind < 224 ? kind : kind < 248 ? eat_short(in) : eat_long(in);
}

/* Memory of just that size, so that the sanitizer sees every byte beyond it. To be freed. */
static inline void *exactly(size_t n)
{
	void *memory = malloc(n ? n : 1);

	MUST(memory);
	return memory;
}

static inline uint64_t sum_of(const uint64_t *values, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += values[i];
	return sum;
}

#endif
