// SPDX-License-Identifier: MIT
/*
 * A plugin for QEMU's code generator that counts which node's memory the accesses of each virtual CPU hit, in user code
 * and in the kernel's, as far as the caches of cache.h let them through. It writes all counters to a file, in the
 * format of counters.py, at each marker (marker.h), at intervals and at the end. Arguments:
 *
 *   out=FILE cpus=0.0.1.1 mem=512.512 low=1024 distances=10.21.21.10
 *       node of each CPU, MiB of each node, MiB of memory below the hole for devices, the distances row by row
 *   l1=KIB llc=KIB     the filter of each CPU and the cache of each node; powers of two, 0 for none
 *   kernel=1           count the kernel's code, too
 *   interval=MS        the time series; 0 for none
 *   pages=1            user accesses by page
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache.h"
#include "marker.h"
#include "memory.h"
#include "pages.h"
#include "qemu_plugin.h"

#define MAX_CPUS 64
#define KERNEL_START (1ull << 47) /* Documentation/arch/x86/x86_64/mm.rst: addresses above are the kernel's */
#define CHECK_EVERY 1024	  /* lookups that went the short way are looked up properly, too */

enum { USER, KERNEL, N_CLASSES };
enum { READ, WRITE, N_DIRECTIONS };

static const char *const class_names[] = { "user", "kernel" };

struct counts {
	uint64_t accesses;
	uint64_t lookups;
	uint64_t io;
	uint64_t unknown;
	uint64_t by_node[N_DIRECTIONS][MAX_NODES];
};

struct cpu {
	struct counts counts[N_CLASSES];
	uint64_t *filter;
	uint64_t n_quick;
	uint64_t n_wrong;
	unsigned int node;
	unsigned int hint;
} __attribute__((aligned(128))); /* no line is written by two CPUs */

static struct {
	struct cpu cpus[MAX_CPUS];
	struct memory memory;
	struct pages pages;
	uint64_t distances[MAX_NODES * MAX_NODES];
	uint64_t filter_mask;
	uint64_t llc_set_mask;
	uint32_t *llc[MAX_NODES];
	unsigned int n_cpus;
	unsigned int n_nodes;
	unsigned int l1_kib;
	unsigned int llc_kib;
	unsigned int interval_ms;
	bool with_kernel;
	bool with_pages;
	FILE *file;
	bool is_over;
	struct timespec started;
	pthread_mutex_t writing;
} the = { .writing = PTHREAD_MUTEX_INITIALIZER };

EXPORT int qemu_plugin_version = ORACLE_API;

static struct range *find(struct cpu *cpu, struct qemu_plugin_hwaddr *where, uint64_t *offset)
{
	struct range *range = memory_find_quickly(&the.memory, where, &cpu->hint, offset);

	if (__builtin_expect(!range, 0))
		return memory_find(&the.memory, where, offset);
	if (__builtin_expect(++cpu->n_quick % CHECK_EVERY == 0, 0)) {
		uint64_t proper;

		if (memory_find(&the.memory, where, &proper) != range || proper != *offset)
			cpu->n_wrong++;
	}
	return range;
}

/* Whether the node's cache has the line; a write takes it out of the other ones. */
static inline bool is_cached(unsigned int node, uint32_t line, bool is_write)
{
	if (is_write) {
		for (unsigned int other = 0; other < the.n_nodes; other++)
			if (other != node)
				llc_drop(the.llc[other], the.llc_set_mask, line);
	}
	return llc_hit(the.llc[node], the.llc_set_mask, line);
}

static inline __attribute__((always_inline)) void count(unsigned int number, qemu_plugin_meminfo_t info,
							uint64_t address, int class)
{
	struct cpu *cpu = &the.cpus[number];
	struct counts *counts = &cpu->counts[class];
	struct qemu_plugin_hwaddr *where;
	struct range *range;
	uint64_t offset;
	bool is_write;

	counts->accesses++;
	if (cpu->filter && filter_hit(cpu->filter, the.filter_mask, address))
		return;
	counts->lookups++;
	where = qemu_plugin_get_hwaddr(info, address);
	if (!where || qemu_plugin_hwaddr_is_io(where)) {
		counts->io++;
		return;
	}
	range = find(cpu, where, &offset);
	if (!range) {
		counts->unknown++;
		return;
	}
	is_write = qemu_plugin_mem_is_store(info);
	if (the.llc_kib && is_cached(cpu->node, (uint32_t)(range->first_line + (offset >> LINE_BITS)), is_write))
		return;
	counts->by_node[is_write][range->node]++;
	if (class == USER && the.with_pages)
		pages_count(&the.pages, address, cpu->node);
}

static void on_user_access(unsigned int cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
	(void)data;
	count(cpu, info, address, USER);
}

static void on_kernel_access(unsigned int cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
	(void)data;
	count(cpu, info, address, KERNEL);
}

static void write_counts(unsigned int cpu, int class)
{
	const struct counts *counts = &the.cpus[cpu].counts[class];

	fprintf(the.file, "cpu %u %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, cpu, class_names[class],
		counts->accesses, counts->lookups, counts->io, counts->unknown);
	for (int direction = READ; direction < N_DIRECTIONS; direction++)
		for (unsigned int node = 0; node < the.n_nodes; node++)
			fprintf(the.file, " %" PRIu64, counts->by_node[direction][node]);
	fputc('\n', the.file);
}

/* One reading. The CPUs go on meanwhile, so a reading is as exact as what they do within it is little. */
static void write_reading(const char *kind, unsigned int number, bool with_pages)
{
	struct timespec now;
	uint64_t n_wrong = 0;

	pthread_mutex_lock(&the.writing);
	if (the.is_over)
		goto out;
	clock_gettime(CLOCK_MONOTONIC, &now);
	for (unsigned int cpu = 0; cpu < the.n_cpus; cpu++)
		n_wrong += the.cpus[cpu].n_wrong;
	fprintf(the.file, "%s %u %.6f %" PRIu64 " %" PRIu64 "\n", kind, number,
		(double)(now.tv_sec - the.started.tv_sec) + (double)(now.tv_nsec - the.started.tv_nsec) * 1e-9, n_wrong,
		the.pages.lost);
	for (unsigned int cpu = 0; cpu < the.n_cpus; cpu++)
		for (int class = USER; class <= (the.with_kernel ? KERNEL : USER); class++)
			write_counts(cpu, class);
	if (with_pages)
		pages_write(&the.pages, the.file);
	fputs(".\n", the.file);
	fflush(the.file);
out:
	pthread_mutex_unlock(&the.writing);
}

static void on_marker(unsigned int cpu, void *number)
{
	(void)cpu;
	write_reading("mark", (unsigned int)(uintptr_t)number, the.with_pages);
}

static void on_exit_of_qemu(qemu_plugin_id_t id, void *data)
{
	(void)id;
	(void)data;
	write_reading("exit", 0, false);
	pthread_mutex_lock(&the.writing);
	the.is_over = true; /* the ticker lives on */
	pthread_mutex_unlock(&the.writing);
}

static void *tick(void *data)
{
	struct timespec at = the.started;

	for (;;) {
		at.tv_nsec += the.interval_ms % 1000 * 1000000l;
		at.tv_sec += the.interval_ms / 1000 + at.tv_nsec / 1000000000l;
		at.tv_nsec %= 1000000000l;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
		write_reading("tick", 0, false);
	}
	return data;
}

/* Whether an instruction is a marker, and its number. */
static bool is_marker(const struct qemu_plugin_insn *insn, uintptr_t *number)
{
	unsigned char bytes[7];
	uint32_t displacement;

	if (qemu_plugin_insn_size(insn) != sizeof(bytes))
		return false;
#if ORACLE_API >= 3
	if (qemu_plugin_insn_data(insn, bytes, sizeof(bytes)) != sizeof(bytes))
		return false;
#else
	memcpy(bytes, qemu_plugin_insn_data(insn), sizeof(bytes));
#endif
	memcpy(&displacement, bytes + 3, sizeof(displacement));
	*number = displacement & 0xffff;
	return bytes[0] == 0x0f && bytes[1] == 0x1f && bytes[2] == 0x80 && (displacement & ~0xffffu) == MARKER_MAGIC;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	bool is_kernel = qemu_plugin_tb_vaddr(tb) >= KERNEL_START;
	size_t n = qemu_plugin_tb_n_insns(tb);
	uintptr_t number;

	(void)id;
	if (is_kernel && !the.with_kernel)
		return;
	for (size_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);

		if (!is_kernel && is_marker(insn, &number))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_marker, QEMU_PLUGIN_CB_NO_REGS, (void *)number);
		qemu_plugin_register_vcpu_mem_cb(insn, is_kernel ? on_kernel_access : on_user_access,
						 QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, NULL);
	}
}

static int refuse(const char *what, const char *detail)
{
	fprintf(stderr, "oracle: %s%s\n", what, detail);
	return -EINVAL;
}

/* Numbers with dots between them; returns how many, or -EINVAL. */
static int take_numbers(const char *text, uint64_t *numbers, int capacity)
{
	char *end;

	for (int n = 0; n < capacity; text = end + 1) {
		numbers[n++] = strtoull(text, &end, 10);
		if (end == text || (*end && *end != '.'))
			return -EINVAL;
		if (!*end)
			return n;
	}
	return -EINVAL;
}

static int take_arguments(int n_arguments, char **arguments)
{
	static const char *const names[] = { "cpus", "mem", "distances", "low", "l1", "llc", "kernel", "interval", "pages" };
	enum { CPUS, MEM, DISTANCES, LOW, L1, LLC, WITH_KERNEL, INTERVAL, PAGES, N_NAMES };
	uint64_t values[N_NAMES][MAX_NODES * MAX_NODES] = { 0 };
	int n_values[N_NAMES] = { 0 };

	for (int i = 0; i < n_arguments; i++) {
		char *value = strchr(arguments[i], '=');
		size_t length = value ? (size_t)(value - arguments[i]) : 0;
		int name = 0;

		if (length == 3 && !strncmp(arguments[i], "out", 3)) {
			the.file = fopen(value + 1, "we");
			continue;
		}
		while (name < N_NAMES && (strlen(names[name]) != length || strncmp(arguments[i], names[name], length)))
			name++;
		if (name == N_NAMES)
			return refuse("no such argument, or not its value: ", arguments[i]);
		n_values[name] = take_numbers(value + 1, values[name], MAX_NODES * MAX_NODES);
		if (n_values[name] < 0)
			return refuse("no such argument, or not its value: ", arguments[i]);
	}
	if (!the.file)
		return refuse("no file to write to", "");
	the.n_cpus = (unsigned int)n_values[CPUS];
	the.n_nodes = (unsigned int)n_values[MEM];
	if (!the.n_cpus || the.n_cpus > MAX_CPUS || !the.n_nodes || the.n_nodes > MAX_NODES)
		return refuse("1 to 64 CPUs and 1 to 16 nodes", "");
	if (n_values[DISTANCES] != n_values[MEM] * n_values[MEM] || n_values[LOW] != 1)
		return refuse("a distance between any two nodes and the memory below the hole", "");
	for (unsigned int cpu = 0; cpu < the.n_cpus; cpu++) {
		if (values[CPUS][cpu] >= the.n_nodes)
			return refuse("a CPU on a node without memory", "");
		the.cpus[cpu].node = (unsigned int)values[CPUS][cpu];
	}
	for (unsigned int node = 0; node < the.n_nodes; node++)
		values[MEM][node] <<= 20;
	memory_lay_out(values[MEM], the.n_nodes, values[LOW][0] << 20, &the.memory);
	memcpy(the.distances, values[DISTANCES], sizeof(the.distances));
	the.l1_kib = (unsigned int)values[L1][0];
	the.llc_kib = (unsigned int)values[LLC][0];
	the.with_kernel = values[WITH_KERNEL][0];
	the.interval_ms = (unsigned int)values[INTERVAL][0];
	the.with_pages = values[PAGES][0];
	return 0;
}

static int make_caches(void)
{
	uint64_t filter_lines = ((uint64_t)the.l1_kib << 10) >> LINE_BITS;
	uint64_t llc_sets = (((uint64_t)the.llc_kib << 10) >> LINE_BITS) / LLC_WAYS;

	if ((filter_lines & (filter_lines - 1)) || (llc_sets & (llc_sets - 1)))
		return refuse("caches of a power of two", "");
	the.filter_mask = filter_lines - 1;
	the.llc_set_mask = llc_sets - 1;
	for (unsigned int cpu = 0; filter_lines && cpu < the.n_cpus; cpu++) {
		the.cpus[cpu].filter = calloc(filter_lines, sizeof(uint64_t));
		if (!the.cpus[cpu].filter)
			return -ENOMEM;
	}
	for (unsigned int node = 0; llc_sets && node < the.n_nodes; node++) {
		the.llc[node] = calloc(llc_sets * LLC_WAYS, sizeof(uint32_t));
		if (!the.llc[node])
			return -ENOMEM;
	}
	return the.with_pages ? pages_start(the.n_nodes, &the.pages) : 0;
}

static void write_header(void)
{
	fprintf(the.file, "oracle 1\ncpus");
	for (unsigned int cpu = 0; cpu < the.n_cpus; cpu++)
		fprintf(the.file, " %u", the.cpus[cpu].node);
	fprintf(the.file, "\ndistances");
	for (unsigned int i = 0; i < the.n_nodes * the.n_nodes; i++)
		fprintf(the.file, " %" PRIu64, the.distances[i]);
	fprintf(the.file, "\ncaches %u %u\n", the.l1_kib, the.llc_kib);
	fflush(the.file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	pthread_t ticker;
	int rc;

	clock_gettime(CLOCK_MONOTONIC, &the.started);
	rc = take_arguments(argc, argv);
	if (!rc)
		rc = make_caches();
	if (!rc && (!info->system_emulation || (unsigned int)info->system.max_vcpus != the.n_cpus))
		rc = refuse("not as many CPUs as the machine has", "");
	if (rc)
		return rc;
	write_header();
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	qemu_plugin_register_atexit_cb(id, on_exit_of_qemu, NULL);
	return the.interval_ms ? -pthread_create(&ticker, NULL, tick, NULL) : 0;
}
