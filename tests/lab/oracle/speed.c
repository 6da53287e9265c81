// SPDX-License-Identifier: MIT
/*
 * What the plugin costs the guest: prints the seconds that a fixed amount of arithmetic, of loads in order and of loads
 * in random order take, for comparing a boot with the plugin and one without.
 *
 *   speed [MIB]        of memory; 64 by default
 */
#include "../workloads/program.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PASSES 4
#define STEPS 200000000u
#define RANDOM_LOADS 8000000u

static volatile uint64_t result; /* or the compiler would leave the work out */

static uint64_t step(uint64_t x)
{
	x ^= x << 13;
	x ^= x >> 7;
	return x ^ x << 17;
}

int main(int argc, char **argv)
{
	size_t words = ((size_t)(argc > 1 ? atoi(argv[1]) : 64) << 20) / sizeof(uint64_t);
	uint64_t *memory = malloc(words * sizeof(*memory)), x = 88172645463325252u, sum = 0;
	double started, arithmetic, in_order;

	if (!memory || !words)
		return 1;
	memset(memory, 1, words * sizeof(*memory));
	started = now();
	for (uint32_t i = 0; i < STEPS; i++)
		x = step(x);
	result = x;
	arithmetic = now();
	for (int pass = 0; pass < PASSES; pass++)
		for (size_t i = 0; i < words; i++)
			sum += ((volatile uint64_t *)memory)[i];
	result = sum;
	in_order = now();
	for (uint32_t i = 0; i < RANDOM_LOADS; i++) {
		x = step(x);
		sum += ((volatile uint64_t *)memory)[x % words];
	}
	result = sum;
	printf("arithmetic %.2f s, loads in order %.2f s, random loads %.2f s\n", arithmetic - started, in_order - arithmetic,
	       now() - in_order);
	free(memory);
	return 0;
}
