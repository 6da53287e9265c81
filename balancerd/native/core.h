/* SPDX-License-Identifier: MIT */
/* What the C files of the native core share: the interface, and the two ways to call move_pages(2). */
#ifndef BALANCERD_NATIVE_CORE_H
#define BALANCERD_NATIVE_CORE_H

#include <stddef.h>
#include <stdint.h>

#include "cdef.h"

/*
 * Statuses that the kernel never writes. BAL_UNWRITTEN fills the array before a call: after a positive return the pages
 * of the failing group, and all behind them, still hold it (mm/migrate.c, do_pages_move).
 */
#define BAL_UNWRITTEN INT32_MIN
#define BAL_UNTRIED (INT32_MIN + 1) /* the kernel did not get as far: for the next step */
#define BAL_STUCK (INT32_MIN + 2)   /* not tried on purpose: it belongs to a large folio that has just failed */

#define BAL_STEP_LIMIT (UINT64_C(16) << 30) /* the largest huge page of any architecture */

double bal_now_seconds(void);

/* The node or -errno of each page into status. Returns 0 or -errno, adds to *calls and *longest_seconds. */
int bal_query(int pid, size_t n, void **pages, int *status, uint64_t *calls, double *longest_seconds);

static inline size_t bal_errno_index(int status)
{
	return status < 0 && -(int64_t)status < BAL_ERRNOS ? (size_t)-status : 0;
}

static inline int bal_range_is_valid(const struct bal_range *r)
{
	uint64_t step = r->step_bytes;

	return step >= BAL_PAGE_BYTES && step <= BAL_STEP_LIMIT && (step & (step - 1)) == 0 && r->start <= r->end &&
	       r->start % step == 0 && r->end % step == 0 && r->end <= INT64_MAX;
}

#endif
