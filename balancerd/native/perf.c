// SPDX-License-Identifier: MIT
/*
 * Perf events of single threads with a ring each: opening, changing the rate, closing. Software events, which every
 * kernel and every virtual machine has, and the events of a PMU that the caller describes. What the records say is
 * drain.c's affair.
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

static void begin(const struct bal_ring_args *args, uint32_t type, struct perf_event_attr *attr)
{
	memset(attr, 0, sizeof(*attr));
	attr->size = sizeof(*attr);
	attr->type = type;
	attr->exclude_kernel = args->user_only;
	attr->use_clockid = 1;
	attr->clockid = CLOCK_MONOTONIC;
	attr->watermark = 1; /* nobody waits for the ring, so let nobody be woken */
	attr->wakeup_watermark = UINT32_MAX;
}

static void describe(const struct bal_ring_args *args, struct perf_event_attr *attr)
{
	begin(args, PERF_TYPE_SOFTWARE, attr);
	attr->exclude_hv = 1;
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

static int open_event(const struct bal_ring_args *args, struct perf_event_attr *attr, int group_fd)
{
	return (int)syscall(SYS_perf_event_open, attr, args->tid, -1, group_fd, PERF_FLAG_FD_CLOEXEC);
}

static int map_ring(const struct bal_ring_args *args, struct bal_ring *ring)
{
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);

	ring->data_bytes = args->ring_pages * page_bytes;
	ring->map_bytes = ring->data_bytes + page_bytes;
	ring->map = mmap(NULL, ring->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);
	if (ring->map != MAP_FAILED)
		return 0;
	ring->map = NULL;
	return -errno;
}

/*
 * One event of memory. No exclude_hv, which ibs_op refuses (arch/x86/events/amd/ibs.c, perf_ibs_init). Where the frames
 * are may be a secret, or unknown to the PMU: then it is done without.
 */
static int open_memory_event(const struct bal_ring_args *args, const struct bal_event *event, int group_fd)
{
	struct perf_event_attr attr;
	int fd;

	begin(args, event->type, &attr);
	attr.config = event->config[0];
	attr.config1 = event->config[1];
	attr.config2 = event->config[2];
	if (event->is_auxiliary)
		return open_event(args, &attr, group_fd);
	attr.sample_period = event->period;
	attr.precise_ip = event->precise & 3;
	attr.exclude_guest = event->precise > 0; /* a guest's addresses are its own; drain.c knows those of ibs_op */
	attr.sample_type = BAL_SAMPLE_MEMORY | PERF_SAMPLE_PHYS_ADDR;
	fd = open_event(args, &attr, group_fd);
	if (fd >= 0 || (errno != EACCES && errno != EPERM && errno != EINVAL && errno != EOPNOTSUPP))
		return fd;
	attr.sample_type = BAL_SAMPLE_MEMORY;
	return open_event(args, &attr, group_fd);
}

static int open_memory(const struct bal_ring_args *args, struct bal_ring *ring)
{
	int group_fd = -1;

	for (uint32_t i = 0; i < args->n_events; i++) {
		const struct bal_event *event = &args->events[i];
		int fd = open_memory_event(args, event, group_fd), rc = 0;

		if (fd < 0)
			return -errno;
		ring->event_fd[ring->n_events++] = fd;
		group_fd = event->is_auxiliary ? fd : -1;
		if (event->is_auxiliary)
			continue;
		if (ring->fd < 0) {
			ring->fd = fd;
			rc = map_ring(args, ring);
		} else if (ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, ring->fd)) {
			rc = -errno;
		}
		if (rc)
			return rc;
	}
	return ring->fd < 0 ? -EINVAL : 0;
}

static int open_software(const struct bal_ring_args *args, struct bal_ring *ring)
{
	struct perf_event_attr attr;

	if (args->kind == BAL_RING_REGISTERS && !BAL_REGISTER_MASK)
		return -EOPNOTSUPP;
	describe(args, &attr);
	ring->fd = open_event(args, &attr, -1);
	return ring->fd < 0 ? -errno : map_ring(args, ring);
}

int bal_ring_open(const struct bal_ring_args *args, struct bal_ring *ret)
{
	int rc = -EINVAL;

	memset(ret, 0, sizeof(*ret));
	ret->fd = -1;
	if (args->tid < 0 || !args->frequency_hz || !args->ring_pages || args->ring_pages & (args->ring_pages - 1))
		return rc;
	if (args->kind == BAL_RING_REGISTERS || args->kind == BAL_RING_FAULTS)
		rc = open_software(args, ret);
	else if (args->kind == BAL_RING_MEMORY && args->n_events <= BAL_EVENTS)
		rc = open_memory(args, ret);
	if (rc) {
		bal_ring_close(ret);
		return rc;
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

int bal_ring_period(const struct bal_ring *ring, uint32_t event, uint64_t period)
{
	if (event >= ring->n_events || !period)
		return -EINVAL;
	return ioctl(ring->event_fd[event], PERF_EVENT_IOC_PERIOD, &period) ? -errno : 0;
}

int bal_ring_close(struct bal_ring *ring)
{
	if (ring->map)
		munmap(ring->map, ring->map_bytes);
	if (ring->fd >= 0 && !ring->n_events)
		close(ring->fd);
	for (uint32_t i = ring->n_events; i > 0; i--) /* the members of a group before its leader */
		close(ring->event_fd[i - 1]);
	ring->n_events = 0;
	ring->map = NULL;
	ring->fd = -1;
	return 0;
}
