// SPDX-License-Identifier: MIT
/*
 * A process that keeps its own address space locked.
 *
 *   locker MIB TOUCH_CPU SPIN_CPU LOCK_MIB
 *
 * MIB of memory are touched on TOUCH_CPU, which places them. Then it prints "ready", and on SPIN_CPU sixteen threads
 * change the protection of LOCK_MIB that hold nothing but the zero page, for ever: mprotect(2) holds the mmap lock for
 * writing while it goes through their page tables, which cost 1/512 of LOCK_MIB. The lock is given in turn, so whoever
 * reads the mappings waits for sixteen calls, and move_pages(2) without nodes does so for every 16 addresses. SIGTERM
 * ends it.
 */
#include "program.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* since Linux 5.14 */
#endif

#define THREADS 16

static const int protections[] = { PROT_READ, PROT_READ | PROT_WRITE, PROT_NONE };
static atomic_uint turn; /* the one before has set another protection: a call that changes nothing takes no time */
static size_t lock_bytes;
static char *locked;

static char *map(size_t bytes)
{
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED || madvise(memory, bytes, MADV_NOHUGEPAGE))
		fail("mmap");
	return memory;
}

static void *keep_locking(void *unused)
{
	for (;;)
		if (mprotect(locked, lock_bytes, protections[atomic_fetch_add(&turn, 1) % 3]))
			fail("mprotect");
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	size_t bytes;

	if (argc != 5) {
		fprintf(stderr, "usage: locker MIB TOUCH_CPU SPIN_CPU LOCK_MIB\n");
		return 2;
	}
	bytes = strtoul(argv[1], NULL, 10) << 20;
	lock_bytes = strtoul(argv[4], NULL, 10) << 20;
	run_on(atoi(argv[2]));
	memset(map(bytes), 1, bytes);
	run_on(atoi(argv[3]));
	locked = map(lock_bytes);
	if (madvise(locked, lock_bytes, MADV_POPULATE_READ))
		fail("MADV_POPULATE_READ");
	puts("ready");
	fflush(stdout);
	for (int i = 1; i < THREADS; i++)
		if (pthread_create(&thread, NULL, keep_locking, NULL))
			fail("pthread_create");
	keep_locking(NULL);
}
