/* SPDX-License-Identifier: MIT */
/*
 * Gaps: the times from one round of a thread's loop to the next, as a histogram and the longest. Printed as the line that
 * parse_lap() of victim.py reads.
 */
#ifndef GAPS_H
#define GAPS_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#define LONG_NS 2000000
#define SHARES_LOG2 4 /* each power of two is divided into so many (log2) shares of equal width */
#define BUCKETS (64 << SHARES_LOG2)

struct gaps {
	uint64_t longest, in_long, buckets[BUCKETS];
};

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static inline int gaps_bucket_of(uint64_t ns)
{
	int log2 = 63 - __builtin_clzll(ns | 1);

	if (log2 <= SHARES_LOG2)
		return (int)ns;
	return ((log2 - SHARES_LOG2 + 1) << SHARES_LOG2) +
	       (int)((ns >> (log2 - SHARES_LOG2)) & ((1 << SHARES_LOG2) - 1));
}

/* The first value behind a bucket. */
static inline uint64_t gaps_end_of(int bucket)
{
	int octave = bucket >> SHARES_LOG2;
	uint64_t share = (uint64_t)bucket & ((1 << SHARES_LOG2) - 1);

	if (octave < 2)
		return (uint64_t)bucket + 1;
	return ((share + 1) + (1 << SHARES_LOG2)) << (octave - 1);
}

static inline void gaps_count(struct gaps *gaps, uint64_t ns)
{
	gaps->buckets[gaps_bucket_of(ns)]++;
	if (ns > gaps->longest)
		gaps->longest = ns;
	if (ns >= LONG_NS)
		gaps->in_long += ns;
}

static inline void gaps_add(struct gaps *total, const struct gaps *gaps)
{
	for (int i = 0; i < BUCKETS; i++)
		total->buckets[i] += gaps->buckets[i];
	total->in_long += gaps->in_long;
	if (gaps->longest > total->longest)
		total->longest = gaps->longest;
}

static inline void gaps_print(const char *name, const struct gaps *gaps)
{
	printf("%s %" PRIu64 " %" PRIu64, name, gaps->longest, gaps->in_long);
	for (int i = 0; i < BUCKETS; i++)
		if (gaps->buckets[i])
			printf(" %" PRIu64 ":%" PRIu64, gaps_end_of(i), gaps->buckets[i]);
	printf("\n");
}

#endif
