// SPDX-License-Identifier: MIT
/*
 * Which registers make the address that an instruction of x86-64 accesses, and how long it is (Intel SDM, volume 2,
 * chapter 2 and appendix A). What is not understood has no operand here; the caller then knows no more than the
 * registers.
 */
#include <errno.h>
#include <string.h>

#include "decode.h"

#define NONE (-1)
#define LONGEST 15

enum map { MAP_ONE, MAP_0F, MAP_0F38, MAP_0F3A, MAP_OTHER };

/* Where perf puts AX, CX, DX, BX, SP, BP, SI, DI, R8 to R15 among the registers of BAL_REGISTER_MASK. */
static const int8_t place_of[16] = { 0, 2, 3, 1, NONE, 6, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14 };

struct code {
	const uint8_t *byte;
	size_t n;
	size_t at;
	enum map map;
	uint8_t op;
	uint8_t rex;	 /* W, R, X, B; of a VEX prefix, too, as if it were one */
	uint8_t is_vex;
	uint8_t is_evex;
	uint8_t is_short; /* 66: operands of 16 bits */
	uint8_t is_foreign; /* addresses of another segment or size */
};

static int next(struct code *c)
{
	return c->at < c->n ? c->byte[c->at++] : NONE;
}

static int is_between(int byte, int first, int last)
{
	return byte >= first && byte <= last;
}

static int is_legacy_prefix(struct code *c, int byte)
{
	c->is_short |= byte == 0x66;
	c->is_foreign |= is_between(byte, 0x64, 0x65) || byte == 0x67;
	return is_between(byte, 0x64, 0x67) || byte == 0xf0 || byte == 0xf2 || byte == 0xf3 || byte == 0x2e ||
	       byte == 0x36 || byte == 0x3e || byte == 0x26;
}

/* C5, C4 or 62 and what follows, up to the opcode. */
static int take_vex(struct code *c, int first)
{
	int a = next(c), b = first == 0xc5 ? 0 : next(c), third = first == 0x62 ? next(c) : 0, map;

	if (a == NONE || b == NONE || third == NONE)
		return -ENOENT;
	c->is_vex = 1;
	c->is_evex = first == 0x62;
	map = first == 0xc5 ? 1 : a & (c->is_evex ? 7 : 0x1f);
	c->map = map > MAP_0F3A ? MAP_OTHER : (enum map)map;
	if (first != 0xc5)
		c->rex = (uint8_t)(~a >> 5 & 7);
	return 0;
}

/* Prefixes and opcode. */
static int take_opcode(struct code *c)
{
	int byte = next(c);

	while (is_legacy_prefix(c, byte))
		byte = next(c);
	if (byte == 0xc5 || byte == 0xc4 || byte == 0x62) {
		if (take_vex(c, byte))
			return -ENOENT;
		byte = next(c);
	} else {
		if (is_between(byte, 0x40, 0x4f)) {
			c->rex = (uint8_t)byte;
			byte = next(c);
		}
		if (byte == 0x0f) {
			byte = next(c);
			c->map = byte == 0x38 ? MAP_0F38 : byte == 0x3a ? MAP_0F3A : MAP_0F;
			if (c->map != MAP_0F)
				byte = next(c);
		}
	}
	c->op = (uint8_t)byte;
	return byte == NONE ? -ENOENT : 0;
}

/* Opcodes that 64-bit programs do not have. */
static int is_invalid(const struct code *c)
{
	int op = c->op;

	if (c->map != MAP_ONE)
		return 0;
	return (op < 0x40 && (op & 7) >= 6) || is_between(op, 0x40, 0x4f) || op == 0x60 || op == 0x61 || op == 0x82 ||
	       op == 0x9a || op == 0xce || is_between(op, 0xd4, 0xd6) || op == 0xea;
}

static int has_modrm(const struct code *c)
{
	int op = c->op;

	if (c->map == MAP_0F)
		return !(is_between(op, 0x05, 0x09) || op == 0x0b || op == 0x0e || is_between(op, 0x30, 0x37) ||
			 op == 0x77 || is_between(op, 0x80, 0x8f) || is_between(op, 0xa0, 0xa2) ||
			 is_between(op, 0xa8, 0xaa) || is_between(op, 0xc8, 0xcf));
	if (c->map != MAP_ONE)
		return 1;
	return (op < 0x40 && (op & 7) < 4) || op == 0x63 || op == 0x69 || op == 0x6b || is_between(op, 0x80, 0x8f) ||
	       op == 0xc0 || op == 0xc1 || op == 0xc6 || op == 0xc7 || is_between(op, 0xd0, 0xd3) ||
	       is_between(op, 0xd8, 0xdf) || op == 0xf6 || op == 0xf7 || op == 0xfe || op == 0xff;
}

/* Bytes of an immediate operand, or of a jump. */
static size_t immediate_bytes(const struct code *c, int modrm)
{
	size_t word = c->is_short ? 2 : 4;
	int op = c->op;

	if (c->map == MAP_0F)
		return is_between(op, 0x80, 0x8f) && !c->is_vex ? 4 :
		       is_between(op, 0x70, 0x73) || op == 0xa4 || op == 0xac || op == 0xba || op == 0xc2 ||
				       is_between(op, 0xc4, 0xc6);
	if (c->map != MAP_ONE)
		return c->map == MAP_0F3A;
	if (op < 0x40)
		return (op & 7) == 4 ? 1 : (op & 7) == 5 ? word : 0;
	if (is_between(op, 0xb8, 0xbf))
		return c->rex & 8 ? 8 : word;
	if (op == 0xf6 || op == 0xf7)
		return modrm >> 3 & 6 ? 0 : op == 0xf6 ? 1 : word;
	if (op == 0x68 || op == 0x69 || op == 0x81 || op == 0xa9 || op == 0xc7)
		return word;
	if (op == 0xe8 || op == 0xe9)
		return 4;
	if (is_between(op, 0xa0, 0xa3))
		return 8;
	if (op == 0xc2 || op == 0xca || op == 0xc8)
		return op == 0xc8 ? 3 : 2;
	return op == 0x6a || op == 0x6b || is_between(op, 0x70, 0x80) || op == 0x83 || op == 0xa8 ||
	       is_between(op, 0xb0, 0xb7) || op == 0xc0 || op == 0xc1 || op == 0xc6 || op == 0xcd ||
	       is_between(op, 0xe0, 0xe7) || op == 0xeb;
}

/* Whether memory is accessed, at one address, that of the operand; and not to go on somewhere else. */
static int is_access(const struct code *c, int modrm)
{
	int op = c->op, extension = modrm >> 3 & 7;

	if (c->is_foreign)
		return 0;
	if (c->map == MAP_ONE)
		return op != 0x8d && !(op == 0xff && is_between(extension, 2, 5));
	if (c->map == MAP_0F)
		return op != 0x0d && !(is_between(op, 0x18, 0x1f) && !c->is_vex); /* hints */
	return !(c->map == MAP_0F38 && (is_between(op, 0x90, 0x93) || is_between(op, 0xa0, 0xa3))); /* gather, scatter */
}

/* The general register that the instruction writes, numbered as in ModRM; NONE, or any but that one: none. */
static int written(const struct code *c, int modrm)
{
	int op = c->op, reg = (modrm >> 3 & 7) | (c->rex & 4) << 1, is_general;

	switch (c->map) {
	case MAP_ONE:
		is_general = (op < 0x38 && (op & 2)) || op == 0x63 || op == 0x69 || op == 0x6b || op == 0x86 ||
			     op == 0x87 || op == 0x8a || op == 0x8b;
		break;
	case MAP_0F:
		is_general = (is_between(op, 0x40, 0x4f) && !c->is_vex) || op == 0x2c || op == 0x2d || op == 0xaf ||
			     is_between(op, 0xb6, 0xb8) || is_between(op, 0xbc, 0xc1);
		break;
	default:
		is_general = is_between(op, 0xf0, 0xf7);
	}
	return is_general ? reg : NONE;
}

/* ModRM, SIB and displacement. base and index get the numbers of registers. */
static int take_address(struct code *c, int modrm, int *base, int *index, struct bal_operand *ret)
{
	int mod = modrm >> 6, sib, bytes = mod == 1 ? 1 : mod == 2 ? 4 : 0;
	int32_t wide = 0;

	*base = (modrm & 7) | (c->rex & 1) << 3;
	*index = NONE;
	if ((modrm & 7) == 4) {
		sib = next(c);
		if (sib == NONE)
			return -ENOENT;
		*base = (sib & 7) | (c->rex & 1) << 3;
		*index = (sib >> 3 & 7) | (c->rex & 2) << 2;
		ret->shift = (uint8_t)(sib >> 6);
		if (*index == 4)
			*index = NONE;
	}
	if (mod == 0 && (*base & 7) == 5) {
		*base = (modrm & 7) == 4 ? NONE : 4; /* relative to IP: as little of our affair as the stack */
		bytes = 4;
	}
	if (c->n - c->at < (size_t)bytes)
		return -ENOENT;
	memcpy(&wide, c->byte + c->at, (size_t)bytes);
	ret->displacement = bytes == 1 ? (int8_t)wide : wide;
	c->at += (size_t)bytes;
	return 0;
}

int bal_decode(const uint8_t *code, size_t n, struct bal_operand *ret)
{
	struct code c = { .byte = code, .n = n < LONGEST ? n : LONGEST };
	int modrm = 0xc0, base = NONE, index = NONE, out;
	size_t immediate;

	*ret = (struct bal_operand){ .base = NONE, .index = NONE };
	if (take_opcode(&c) || is_invalid(&c))
		return -ENOENT;
	if (has_modrm(&c)) {
		modrm = next(&c);
		if (modrm == NONE || (modrm >> 6 != 3 && take_address(&c, modrm, &base, &index, ret)))
			return -ENOENT;
	}
	immediate = immediate_bytes(&c, modrm);
	if (c.n - c.at < immediate)
		return -ENOENT;
	ret->length = (uint8_t)(c.at + immediate);
	if (modrm >> 6 == 3 || base == 4 || !is_access(&c, modrm) || (c.is_evex && modrm >> 6 == 1))
		return 0; /* an EVEX displacement of one byte counts in units that depend on the operand */
	ret->base = base == NONE ? NONE : place_of[base];
	ret->index = index == NONE ? NONE : place_of[index];
	ret->is_known = base != NONE || index != NONE;
	out = written(&c, modrm);
	ret->is_lost = (out != NONE && (out == base || out == index)) ||
		       (c.map == MAP_ONE && (c.op == 0xf6 || c.op == 0xf7) && modrm & 0x20); /* mul, div: AX, DX */
	return 0;
}

/*
 * Instructions cannot be read backwards, but reading forwards from a wrong byte soon falls in with the right ones. So
 * each byte before the end begins a chain, and that instruction is the last on which most chains agree.
 */
int bal_decode_last(const uint8_t *code, size_t n, struct bal_operand *ret)
{
	uint8_t chains[BAL_CODE_BEFORE + 1] = { 0 };
	struct bal_operand one;
	uint8_t most = 0;

	*ret = (struct bal_operand){ .base = NONE, .index = NONE };
	if (n > BAL_CODE_BEFORE)
		return -EINVAL;
	for (size_t at = 0; at < n; at++) {
		chains[at]++;
		if (bal_decode(code + at, n - at, &one))
			continue;
		if (at + one.length < n) {
			chains[at + one.length] += chains[at];
		} else if (chains[at] > most) {
			most = chains[at];
			*ret = one;
		}
	}
	return most ? 0 : -ENOENT;
}
