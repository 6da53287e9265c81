// SPDX-License-Identifier: MIT
/*
 * Steps of bal_migrate() against a kernel that answers anything, or that moves folios as mm/migrate.c does; then what is
 * told to have moved is what has.
 */
#include "memory.h"

#define MOST_RANGES 4
#define MOST_STEPS 200
#define MOST_RUNS 4096

static uint16_t queue[FRAMES];
static size_t n_queued;

static int move_folio(struct frame *head, int node)
{
	if (head->is_pinned)
		return -1;
	for (size_t i = 0; i < head->pages && head + i < memory.frame + FRAMES; i++)
		head[i].status = (int16_t)node;
	return 0;
}

/* do_move_pages_to_node() and what its caller does about it. */
static long move_queued(int node, int *status, unsigned long from, unsigned long to, unsigned long n)
{
	long failed = 0;

	if (!n_queued)
		return 0;
	for (size_t i = 0; i < n_queued; i++) {
		struct frame *head = &memory.frame[queue[i]];

		failed += move_folio(head, node) != 0;
		head->is_isolated = 0;
	}
	n_queued = 0;
	if (failed)
		return failed + (long)(n - to);
	for (; from < to; from++)
		status[from] = node;
	return 0;
}

static int enqueue(const void *page, int node)
{
	struct frame *frame, *head;

	if ((uintptr_t)page == -(uintptr_t)PAGE) /* a separator */
		return -EFAULT;
	frame = frame_at(page);
	head = &memory.frame[frame->head];
	if (frame->status < 0 || frame->status == node)
		return frame->status;
	if (head->is_isolated)
		return -EBUSY;
	head->is_isolated = 1;
	queue[n_queued++] = frame->head;
	return INT32_MAX;
}

/* do_pages_move() of Linux 6.1 and later. */
static long move_pages(unsigned long n, void *const *pages, const int *nodes, int *status)
{
	unsigned long start = 0, i = 0;
	int current = -1;
	long rc;

	n_queued = 0;
	for (; i < n; i++) {
		int one;

		if (current < 0) {
			current = nodes[i];
			start = i;
		} else if (nodes[i] != current) {
			rc = move_queued(current, status, start, i, n);
			if (rc)
				return rc;
			start = i;
			current = nodes[i];
		}
		one = enqueue(pages[i], current);
		if (one == INT32_MAX)
			continue;
		status[i] = one;
		rc = move_queued(current, status, start, i, n);
		if (rc)
			return rc > 0 ? rc - 1 : rc;
		current = -1;
	}
	return current < 0 ? 0 : move_queued(current, status, start, i, n);
}

static long move_wildly(unsigned long n, int *status)
{
	uint8_t how = eat_byte(memory.in);
	unsigned long written = how < 128 ? n : eat_byte(memory.in) % (n + 1);

	for (unsigned long i = 0; i < written; i++)
		status[i] = wild_status();
	return how & 1 ? 1 + how : 0;
}

long answer_syscall(long number, ...)
{
	va_list given;
	int pid, *status;
	unsigned long n;
	void **pages;
	const int *nodes;

	MUST(number == SYS_move_pages);
	va_start(given, number);
	pid = va_arg(given, int);
	n = va_arg(given, unsigned long);
	pages = va_arg(given, void **);
	nodes = va_arg(given, const int *);
	status = va_arg(given, int *);
	va_end(given);
	if (!nodes)
		return answer_query(pid, n, pages, status);
	MUST(pid == TARGET_PID && n > 0);
	if (is_failing_call()) {
		if (!memory.is_wild) /* after it had done half of them */
			move_pages(n / 2, pages, nodes, status);
		errno = memory.failure;
		return -1;
	}
	return memory.is_wild ? move_wildly(n, status) : move_pages(n, pages, nodes, status);
}

/* Ascending ranges, no two in one block: what lies in two ranges moves with the first and is told of neither. */
static size_t make_ranges(struct input *in, uint64_t block_bytes, struct bal_range *ranges)
{
	size_t n = eat_byte(in) % (MOST_RANGES + 1), made = 0;
	uint64_t at = MEMORY_START, end = MEMORY_START + FRAMES * PAGE;

	while (made < n) {
		uint8_t skip = eat_byte(in), length = eat_byte(in), kind = eat_byte(in);
		uint64_t step_bytes = kind < 192 ? PAGE : PAGE << kind % 8;
		uint64_t start = at + skip % 32 * PAGE, to;

		start = (start + step_bytes - 1) / step_bytes * step_bytes;
		to = start + (length * PAGE + step_bytes - 1) / step_bytes * step_bytes;
		if (to > end)
			break;
		ranges[made++] = (struct bal_range){ .start = start, .end = to, .step_bytes = step_bytes };
		at = (to + block_bytes - 1) / block_bytes * block_bytes;
	}
	return made;
}

static void check_sums(const struct bal_migration *told, const struct bal_migrate_args *args)
{
	uint64_t moved = 0, failed = 0, unknown = 0;

	MUST(told->looked == told->already_on_target + told->left_alone + told->absent + told->other_before +
				     told->no_room + told->submitted);
	MUST(sum_of(told->before_errno, BAL_ERRNOS) == told->other_before);
	MUST(told->submitted == told->moved + sum_of(told->by_errno, BAL_ERRNOS) + told->not_attempted + told->unwritten);
	MUST(sum_of(told->from_node, BAL_NODES) == told->moved);
	MUST(told->highest_node == -1 ? !told->moved : told->from_node[told->highest_node] > 0);
	MUST(told->refused + told->stuck <= told->by_errno[EBUSY]);
	MUST(told->n_runs <= args->run_capacity);
	for (uint64_t i = 0; i < told->n_runs; i++) {
		const struct bal_run *run = &args->runs[i];
		uint64_t pages = (run->end - run->start) / PAGE;

		MUST(run->start < run->end && (run->start | run->end) % PAGE == 0 && run->source != run->target);
		moved += run->error ? 0 : pages;
		unknown += run->error == -1 ? pages : 0;
		failed += run->error > 0 ? pages : 0;
	}
	MUST(moved + unknown + failed + told->unrecorded ==
	     told->moved + told->unwritten + sum_of(told->by_errno, BAL_ERRNOS));
	MUST(told->unrecorded || (moved == told->moved && unknown == told->unwritten));
}

/* How many pages of the ranges are on other nodes than before. */
static uint64_t count_moved(const struct bal_range *ranges, size_t n, const struct frame *before)
{
	uint64_t moved = 0;

	for (size_t i = 0; i < n; i++)
		for (uint64_t a = ranges[i].start; a < ranges[i].end; a += PAGE)
			moved += before[(a - MEMORY_START) / PAGE].status != memory.frame[(a - MEMORY_START) / PAGE].status;
	return moved;
}

/* What moved is told to have moved; where a question failed, at least to be unknown or untried. */
static void check_moved(const struct bal_migration *told, uint64_t moved)
{
	if (!memory.has_failed_query)
		MUST(told->moved == moved);
	MUST(told->moved <= moved && moved <= told->moved + told->unwritten + told->not_attempted);
}

/* The folios of a hugetlb mapping are of its page size. */
static void fit_folios(const struct bal_range *ranges, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t pages = ranges[i].step_bytes / PAGE, first = (ranges[i].start - MEMORY_START) / PAGE;
		size_t end = (ranges[i].end - MEMORY_START) / PAGE;

		for (size_t at = first; pages > 1 && at < end; at++) {
			size_t head = at - at % pages;

			memory.frame[at] = memory.frame[head];
			memory.frame[at].head = (uint16_t)head;
			memory.frame[at].pages = (uint16_t)pages;
		}
	}
}

static void take_steps(const struct bal_range *ranges, size_t n_ranges, const struct bal_migrate_args *args)
{
	static struct frame before[FRAMES];
	struct bal_cursor cursor = { 0 };
	struct bal_migration told;

	for (int step = 0; step < MOST_STEPS; step++) {
		struct bal_cursor was = cursor;
		int rc;

		memcpy(before, memory.frame, sizeof(before));
		memory.has_failed_query = 0;
		rc = bal_migrate(TARGET_PID, ranges, n_ranges, args, &cursor, &told);
		MUST(rc == 0 || rc == -EINVAL);
		if (rc)
			return;
		check_sums(&told, args);
		MUST(cursor.range <= n_ranges && told.done == (cursor.range == n_ranges && !told.error));
		if (!memory.is_wild)
			check_moved(&told, count_moved(ranges, n_ranges, before));
		if (told.done)
			return;
		MUST(told.error || told.not_attempted || memcmp(&was, &cursor, sizeof(was)));
	}
	MUST(memory.is_wild); /* a kernel that makes sense comes to an end */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	int32_t target_of[NODES];
	struct bal_range ranges[MOST_RANGES];
	uint8_t shape = eat_byte(&in), huge = eat_byte(&in), room = eat_byte(&in);
	struct bal_migrate_args args = {
		.node = eat_byte(&in) % NODES,
		.flags = 2,
		.batch_pages = eat_byte(&in) + (shape & 1u),
		.group_pages = shape & 16 ? shape >> 5 : 0,
		.step_pages = eat_byte(&in) + (shape & 1u),
		.look_pages = eat_byte(&in) + (shape & 1u),
		.huge_bytes = huge < 64 ? 0 : PAGE << (3 + huge % 5),
		.large_room = room == 0 ? UINT64_MAX : room * 8u,
		.target_of = shape & 2 ? target_of : NULL,
		.n_target_of = shape & 4 ? NODES : NODES - 1,
		.run_capacity = shape & 8 ? 3 : MOST_RUNS,
	};
	uint64_t block_bytes;
	size_t n_ranges;

	for (int i = 0; i < NODES; i++)
		target_of[i] = eat_byte(&in) % (NODES + 1) - 1;
	block_bytes = args.huge_bytes ? args.huge_bytes : PAGE << 9;
	n_ranges = make_ranges(&in, block_bytes, ranges);
	begin_memory(&in, block_bytes / PAGE);
	fit_folios(ranges, n_ranges);
	args.runs = exactly(args.run_capacity * sizeof(*args.runs));
	take_steps(ranges, n_ranges, &args);
	free(args.runs);
	return 0;
}
