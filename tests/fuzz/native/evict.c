// SPDX-License-Identifier: MIT
/* Steps of bal_evict() against a kernel that answers anything, or that gives back what is not pinned. */
#include <sys/uio.h>

#include "memory.h"

#define MOST_RANGES 4
#define MOST_STEPS 200
#define PIDFD 9

/* Stops at the first part with a page that takes no advice, as do_madvise() does at a mapping. */
static long advise(const struct iovec *vector, unsigned long n)
{
	long bytes = 0;

	for (unsigned long i = 0; i < n; i++) {
		for (uint64_t at = 0; at < vector[i].iov_len; at += PAGE) {
			struct frame *frame = frame_at((char *)vector[i].iov_base + at);

			if (frame->is_pinned) {
				errno = EINVAL;
				return bytes ? bytes : -1;
			}
			if (frame->status >= 0)
				frame->status = -ENOENT;
		}
		bytes += (long)vector[i].iov_len;
	}
	return bytes;
}

static long advise_wildly(const struct iovec *vector, unsigned long n)
{
	static const int errors[] = { EINVAL, ENOMEM, EINTR, EPERM, ESRCH };
	uint8_t how = eat_byte(memory.in);
	uint64_t bytes = 0;

	for (unsigned long i = 0; i < n; i++)
		bytes += vector[i].iov_len;
	if (how < 128)
		return (long)bytes;
	if (how < 192)
		return (long)(bytes / PAGE * (how % 64) / 64 * PAGE);
	errno = errors[how % 5];
	return -1;
}

long answer_syscall(long number, ...)
{
	va_list given;
	long rc;

	va_start(given, number);
	if (number == SYS_move_pages) {
		int pid = va_arg(given, int);
		unsigned long n = va_arg(given, unsigned long);
		void **pages = va_arg(given, void **);

		MUST(!va_arg(given, void *));
		rc = answer_query(pid, n, pages, va_arg(given, int *));
	} else {
		const struct iovec *vector;
		unsigned long n;

		MUST(number == SYS_process_madvise && va_arg(given, int) == PIDFD);
		vector = va_arg(given, const struct iovec *);
		n = va_arg(given, unsigned long);
		MUST(n && n <= 1024);
		if (is_failing_call()) {
			errno = memory.failure;
			rc = -1;
		} else {
			rc = memory.is_wild ? advise_wildly(vector, n) : advise(vector, n);
		}
	}
	va_end(given);
	return rc;
}

static size_t make_ranges(struct input *in, struct bal_range *ranges)
{
	size_t n = eat_byte(in) % (MOST_RANGES + 1), made = 0;
	uint64_t at = MEMORY_START, end = MEMORY_START + FRAMES * PAGE;

	while (made < n) {
		uint8_t skip = eat_byte(in), length = eat_byte(in), kind = eat_byte(in);
		uint64_t step_bytes = kind < 192 ? PAGE : PAGE << kind % 11;
		uint64_t start = (at + skip % 32 * PAGE + step_bytes - 1) / step_bytes * step_bytes;
		uint64_t to = start + (length * 2 * PAGE + step_bytes - 1) / step_bytes * step_bytes;

		if (to > end)
			break;
		ranges[made++] = (struct bal_range){ .start = start, .end = at = to, .step_bytes = step_bytes };
	}
	return made;
}

static uint64_t count_present(const struct bal_range *ranges, size_t n)
{
	uint64_t present = 0;

	for (size_t i = 0; i < n; i++)
		for (uint64_t a = ranges[i].start; a < ranges[i].end; a += ranges[i].step_bytes)
			present += frame_at((void *)(uintptr_t)a)->status >= 0 ? ranges[i].step_bytes / PAGE : 0;
	return present;
}

static void check_sums(const struct bal_eviction *told)
{
	MUST(told->looked == told->absent + told->other + told->advised);
	MUST(told->advised == told->evicted + told->kept);
	MUST(told->refused <= told->kept);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t shape = eat_byte(&in);
	struct bal_evict_args args = { .advice = shape & 1 ? 20 : 21, .batch_pages = eat_number(&in), .look_pages = eat_number(&in) };
	struct bal_range ranges[MOST_RANGES];
	struct bal_cursor cursor = { 0 };
	struct bal_eviction told;
	size_t n_ranges = make_ranges(&in, ranges);

	begin_memory(&in, FRAMES);
	for (int step = 0; step < MOST_STEPS; step++) {
		uint64_t present = count_present(ranges, n_ranges);
		struct bal_cursor was = cursor;
		int rc = bal_evict(TARGET_PID, PIDFD, ranges, n_ranges, &args, &cursor, &told);

		MUST(rc == 0 || rc == -EINVAL);
		if (rc)
			return 0;
		check_sums(&told);
		MUST(cursor.range <= n_ranges && told.done == (cursor.range == n_ranges && !told.error));
		if (!memory.is_wild && !told.error)
			MUST(told.evicted == present - count_present(ranges, n_ranges));
		if (told.done)
			return 0;
		MUST(told.error || was.range != cursor.range || was.address < cursor.address);
	}
	MUST(memory.is_wild || args.batch_pages < 8 || args.look_pages < 8); /* else it comes to an end */
	return 0;
}
