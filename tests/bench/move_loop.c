/* SPDX-License-Identifier: MIT */
/*
 * The plainest way to move a mapping: one loop over move_pages(2), no question asked before or after. The yardstick for
 * the native core.  move_loop PID START(hex) END(hex) NODE BATCH_PAGES; prints "pages seconds failed".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define MPOL_MF_MOVE 2

static double now_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
	unsigned long start, end, pages = 0, failed = 0;
	size_t batch;
	void **addresses;
	int *nodes, *status, pid;
	double began;

	if (argc != 6)
		return 2;
	pid = atoi(argv[1]);
	start = strtoul(argv[2], NULL, 16);
	end = strtoul(argv[3], NULL, 16);
	batch = strtoul(argv[5], NULL, 10);
	addresses = calloc(batch, sizeof(*addresses));
	nodes = calloc(batch, sizeof(*nodes));
	status = calloc(batch, sizeof(*status));
	if (!addresses || !nodes || !status)
		return 1;
	began = now_seconds();
	for (unsigned long at = start; at < end;) {
		size_t n = 0;

		for (; n < batch && at < end; n++, at += PAGE) {
			addresses[n] = (void *)(uintptr_t)at;
			nodes[n] = atoi(argv[4]);
		}
		if (syscall(SYS_move_pages, pid, n, addresses, nodes, status, MPOL_MF_MOVE)) {
			perror("move_pages");
			return 1;
		}
		for (size_t i = 0; i < n; i++)
			failed += status[i] < 0;
		pages += n;
	}
	printf("%lu %.6f %lu\n", pages, now_seconds() - began, failed);
	return 0;
}
