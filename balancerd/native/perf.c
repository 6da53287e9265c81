// SPDX-License-Identifier: MIT
/*
 * Perf events of single threads with a ring each: opening, changing the rate, closing. Software events only, which every
 * kernel and every virtual machine has. What the records say is drain.c's affair.
 */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "perf.h"

#define NS 1000000000

static void describe(const struct bal_ring_args *args, struct perf_event_attr *attr)
{
	memset(attr, 0, sizeof(*attr));
	attr->size = sizeof(*attr);
	attr->type = PERF_TYPE_SOFTWARE;
	attr->exclude_kernel = args->user_only;
	attr->exclude_hv = 1;
	attr->use_clockid = 1;
	attr->clockid = CLOCK_MONOTONIC;
	attr->watermark = 1; /* nobody waits for the ring, so let nobody be woken */
	attr->wakeup_watermark = UINT32_MAX;
	if (args->kind == BAL_RING_REGISTERS) {
		attr->config = PERF_COUNT_SW_CPU_CLOCK;
		attr->freq = 1;
		attr->sample_freq = args->frequency_hz;
		attr->sample_type = BAL_SAMPLE_REGISTERS;
		attr->sample_regs_user = BAL_REGISTER_MASK;
	} else {
		attr->config = PERF_COUNT_SW_PAGE_FAULTS;
		attr->sample_period = 1;
		attr->sample_type = BAL_SAMPLE_FAULTS;
	}
}

int bal_ring_open(const struct bal_ring_args *args, struct bal_ring *ret)
{
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	struct perf_event_attr attr;

	memset(ret, 0, sizeof(*ret));
	ret->fd = -1;
	if (args->tid < 0 || !args->frequency_hz || !args->ring_pages || args->ring_pages & (args->ring_pages - 1))
		return -EINVAL;
	if (args->kind == BAL_RING_REGISTERS ? !BAL_REGISTER_MASK : args->kind != BAL_RING_FAULTS)
		return args->kind == BAL_RING_REGISTERS ? -EOPNOTSUPP : -EINVAL;
	describe(args, &attr);
	ret->fd = (int)syscall(SYS_perf_event_open, &attr, args->tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (ret->fd < 0)
		return -errno;
	ret->data_bytes = args->ring_pages * page_bytes;
	ret->map_bytes = ret->data_bytes + page_bytes;
	ret->map = mmap(NULL, ret->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ret->fd, 0);
	if (ret->map == MAP_FAILED) {
		int error = errno;

		close(ret->fd);
		ret->map = NULL;
		ret->fd = -1;
		return -error;
	}
	ret->tid = args->tid;
	ret->kind = args->kind;
	ret->first_is_touch = args->kind == BAL_RING_FAULTS && args->first_is_touch;
	return 0;
}

int bal_ring_rate(const struct bal_ring *ring, uint32_t frequency_hz)
{
	uint64_t period_ns = frequency_hz ? NS / frequency_hz : 0;

	if (!period_ns)
		return -EINVAL;
	if (ring->kind != BAL_RING_REGISTERS)
		return 0;
	/* A clock's frequency became a period when it was opened (kernel/events/core.c, perf_swevent_init_hrtimer). */
	return ioctl(ring->fd, PERF_EVENT_IOC_PERIOD, &period_ns) ? -errno : 0;
}

int bal_ring_close(struct bal_ring *ring)
{
	if (ring->map)
		munmap(ring->map, ring->map_bytes);
	if (ring->fd >= 0)
		close(ring->fd);
	ring->map = NULL;
	ring->fd = -1;
	return 0;
}
