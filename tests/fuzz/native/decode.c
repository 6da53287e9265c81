// SPDX-License-Identifier: MIT
/* Any bytes as instructions of x86-64: bal_decode(), bal_decode_last(). */
#include <errno.h>

#include "decode.h"
#include "fuzz.h"

#define LONGEST 15

static uint8_t *copy(const uint8_t *bytes, size_t n)
{
	uint8_t *code = exactly(n);

	memcpy(code, bytes, n);
	return code;
}

static int is_same(const struct bal_operand *a, const struct bal_operand *b)
{
	return a->displacement == b->displacement && a->base == b->base && a->index == b->index && a->shift == b->shift &&
	       a->length == b->length && a->is_known == b->is_known && a->is_lost == b->is_lost;
}

static void check(const struct bal_operand *one)
{
	const uint64_t registers[16] = { 0 };

	MUST(one->length > 0 && one->length <= LONGEST && one->shift < 4 && one->is_known <= 1 && one->is_lost <= 1);
	MUST(one->base >= -1 && one->base < 15 && one->index >= -1 && one->index < 15);
	MUST(!one->is_known || one->base >= 0 || one->index >= 0);
	MUST(one->displacement >= INT32_MIN && one->displacement <= INT32_MAX);
	MUST(bal_operand_address(one, registers) == (uint64_t)one->displacement);
}

/* What follows an instruction says nothing about it, and no byte of it can be spared. */
static void decode(const uint8_t *bytes, size_t n)
{
	struct bal_operand one, alone;
	uint8_t *code = copy(bytes, n);
	int rc = bal_decode(code, n, &one);

	free(code);
	MUST(rc == 0 || rc == -ENOENT);
	if (rc)
		return;
	check(&one);
	MUST(one.length <= n);
	code = copy(bytes, one.length);
	MUST(bal_decode(code, one.length, &alone) == 0 && is_same(&one, &alone));
	free(code);
	code = copy(bytes, one.length - 1u);
	MUST(bal_decode(code, one.length - 1u, &alone) == -ENOENT);
	free(code);
}

/* The last of a stretch is one that some bytes of it end with. */
static void decode_last(const uint8_t *bytes, size_t n)
{
	struct bal_operand last, one;
	uint8_t *code = copy(bytes, n);
	int rc = bal_decode_last(code, n, &last), is_an_end = 0;

	MUST(n > BAL_CODE_BEFORE ? rc == -EINVAL : rc == 0 || rc == -ENOENT);
	for (size_t at = 0; at < n && n <= BAL_CODE_BEFORE; at++)
		if (bal_decode(code + at, n - at, &one) == 0 && at + one.length == n)
			is_an_end |= rc != 0 || is_same(&one, &last);
	MUST(n > BAL_CODE_BEFORE || is_an_end == (rc == 0));
	free(code);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	decode(data, size);
	decode_last(data, size);
	return 0;
}
