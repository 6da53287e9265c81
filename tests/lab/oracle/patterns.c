// SPDX-License-Identifier: MIT
/*
 * Memory accesses that are known to the line, with markers around them, for testing the oracle.
 *
 *   patterns FIRST_MARKER CPU NODE OTHER_NODE MIB PASSES
 *
 * Runs on CPU and reads each line of MIB on NODE, PASSES times; has the kernel move the memory to OTHER_NODE; reads
 * again; writes as often. There is a marker before all, and after each of the four, numbered on from FIRST_MARKER.
 * Prints the memory's address. Exit status 1 if the kernel does not do as it is told.
 */
#include "../workloads/program.h"

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "marker.h"

#define PAGE 4096
#define LINE 64
#define MPOL_BIND 2 /* linux/mempolicy.h */
#define MPOL_MF_MOVE 2

/* A marker whose number is known only now: its code is written here. */
static void mark(unsigned int number)
{
	static unsigned char *code;
	uint32_t displacement = MARKER_MAGIC | number;

	if (code)
		munmap(code, PAGE);
	code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code == MAP_FAILED)
		fail("mmap");
	memcpy(code, "\x0f\x1f\x80", 3);
	memcpy(code + 3, &displacement, sizeof(displacement));
	code[7] = 0xc3;
	((void (*)(void))(uintptr_t)code)();
}

static void read_lines(volatile char *memory, size_t bytes, int passes)
{
	for (int pass = 0; pass < passes; pass++)
		for (size_t at = 0; at < bytes; at += LINE)
			(void)memory[at];
}

static void write_lines(volatile char *memory, size_t bytes, int passes)
{
	for (int pass = 0; pass < passes; pass++)
		for (size_t at = 0; at < bytes; at += LINE)
			memory[at] = (char)pass;
}

static void move(void **pages, int *nodes, int *status, size_t n, int node)
{
	if (syscall(SYS_move_pages, 0, n, pages, nodes, status, MPOL_MF_MOVE))
		fail("move_pages");
	for (size_t i = 0; i < n; i++) {
		if (status[i] != node) {
			fprintf(stderr, "patterns: page %zu of %zu: status %d\n", i, n, status[i]);
			exit(1);
		}
	}
}

int main(int argc, char **argv)
{
	size_t bytes, n_pages;
	unsigned long mask;
	int cpu, node, other, passes, *nodes, *status;
	unsigned int first;
	cpu_set_t set;
	void **pages;
	char *memory;

	if (argc != 7) {
		fprintf(stderr, "usage: patterns FIRST_MARKER CPU NODE OTHER_NODE MIB PASSES\n");
		return 2;
	}
	first = (unsigned int)atoi(argv[1]);
	cpu = atoi(argv[2]);
	node = atoi(argv[3]);
	other = atoi(argv[4]);
	bytes = (size_t)atoi(argv[5]) << 20;
	passes = atoi(argv[6]);
	n_pages = bytes / PAGE;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity");
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || madvise(memory, bytes, MADV_NOHUGEPAGE))
		fail("mmap");
	mask = 1ul << node;
	if (syscall(SYS_mbind, memory, bytes, MPOL_BIND, &mask, 64ul, 0))
		fail("mbind");
	memset(memory, 1, bytes);
	pages = malloc(n_pages * sizeof(*pages));
	nodes = malloc(n_pages * sizeof(*nodes));
	status = malloc(n_pages * sizeof(*status));
	if (!pages || !nodes || !status)
		fail("malloc");
	for (size_t i = 0; i < n_pages; i++) {
		pages[i] = memory + i * PAGE;
		nodes[i] = other;
		status[i] = -1;
	}
	mark(first);
	read_lines(memory, bytes, passes);
	mark(first + 1);
	move(pages, nodes, status, n_pages, other);
	mark(first + 2);
	read_lines(memory, bytes, passes);
	mark(first + 3);
	write_lines(memory, bytes, passes);
	mark(first + 4);
	printf("%p\n", (void *)memory);
	return 0;
}
