// SPDX-License-Identifier: MIT
/*
 * Moving a whole process from one set of nodes to another by migrate_pages(2): on request only, as the process may stand
 * still for as long as the copy takes.
 */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core.h"

int bal_migrate_process(int pid, const uint64_t *sources, const uint64_t *targets, int64_t *ret)
{
	long rc;

	*ret = 0;
	if (pid <= 0) /* 0 would be this process */
		return -EINVAL;
	rc = syscall(SYS_migrate_pages, pid, BAL_NODES + 1ul, sources, targets); /* it takes one bit fewer (get_nodes) */
	if (rc < 0)
		return -errno;
	*ret = rc;
	return 0;
}
