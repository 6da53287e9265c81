// SPDX-License-Identifier: MIT
/*
 * What a moving call costs that moves nothing.
 *
 * move_pages(2) empties the LRU caches of all CPUs before it looks at the first page (lru_cache_disable() in
 * mm/migrate.c, do_pages_move), and waits for each CPU to do so: microseconds on an idle machine, milliseconds where
 * CPUs are busy. That price does not depend on the number of pages, and the target does not feel it. It is measured on
 * a page of our own that stays where it is.
 */
#include <errno.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core.h"

int bal_idle_call(double *ret)
{
	char here = 0;
	void *page = (void *)((uintptr_t)&here & ~((uintptr_t)BAL_PAGE_BYTES - 1));
	int status = BAL_UNWRITTEN, node;
	double began;

	if (syscall(SYS_move_pages, 0, 1ul, &page, NULL, &status, 0) < 0)
		return -errno;
	if (status < 0)
		return status == BAL_UNWRITTEN ? -EAGAIN : status;
	node = status;
	began = bal_now_seconds();
	if (syscall(SYS_move_pages, 0, 1ul, &page, &node, &status, MPOL_MF_MOVE) < 0)
		return -errno;
	*ret = bal_now_seconds() - began;
	return 0;
}
