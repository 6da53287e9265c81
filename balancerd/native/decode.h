/* SPDX-License-Identifier: MIT */
/* Which registers make the address that an instruction accesses: what decode.c tells drain.c. */
#ifndef BALANCERD_NATIVE_DECODE_H
#define BALANCERD_NATIVE_DECODE_H

#include "core.h"

static inline uint64_t bal_operand_address(const struct bal_operand *operand, const uint64_t *registers)
{
	return (operand->base < 0 ? 0 : registers[operand->base]) +
	       (operand->index < 0 ? 0 : registers[operand->index] << operand->shift) + (uint64_t)operand->displacement;
}

#endif
