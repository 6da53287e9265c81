// SPDX-License-Identifier: MIT
/*
 * The mappings of a process from the text of /proc/PID/maps. Knows how a line tells what a mapping holds; which of them
 * matter is the caller's affair.
 *
 * Sources: proc_pid_maps(5); show_map_vma() in fs/proc/task_mmu.c; for the names of files that no directory holds, the
 * callers of shmem_kernel_file_setup() in mm/shmem.c, mm/memfd.c and fs/hugetlbfs/inode.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

#define STRATUM_BITS 6 /* 48 bits of addresses, without 12 of the page: at most seven strata */

/* Where the parser is, and the end of its line. */
struct line {
	const char *at;
	const char *end;
};

struct name {
	const char *at;
	size_t n;
};

static int number(struct line *l, unsigned base, uint64_t *ret)
{
	const char *from = l->at;

	*ret = 0;
	for (; l->at < l->end; l->at++) {
		unsigned char c = (unsigned char)*l->at;
		unsigned digit = c - (unsigned)'0';

		if (digit > 9)
			digit = (c | 0x20) - (unsigned)'a' + 10;
		if (digit >= base || (c > '9' && (c | 0x20) < 'a'))
			break;
		*ret = *ret * base + digit;
	}
	return l->at > from && l->at - from <= 20;
}

static int literal(struct line *l, char c)
{
	return l->at < l->end && *l->at++ == c;
}

static int starts(const struct name *name, const char *prefix)
{
	size_t n = strlen(prefix);

	return name->n >= n && memcmp(name->at, prefix, n) == 0;
}

static int is(const struct name *name, const char *text)
{
	return name->n == strlen(text) && starts(name, text);
}

static const struct bal_device *device_of(uint32_t device, const struct bal_device *devices, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (devices[i].device == device)
			return &devices[i];
	return NULL;
}

static uint8_t kind_in_brackets(const struct name *name)
{
	if (is(name, "[heap]"))
		return BAL_HEAP;
	if (starts(name, "[stack")) /* also "[stack:TID]" of Linux 3.4 to 4.4 */
		return BAL_STACK;
	if (starts(name, "[anon_shmem:")) /* shared and named with PR_SET_VMA_ANON_NAME */
		return BAL_SHMEM;
	if (starts(name, "[anon:"))
		return BAL_ANON;
	return BAL_SPECIAL; /* vdso, vvar, vvar_vclock, vsyscall, uprobes: pages of the kernel */
}

/* What a mapping holds, from its name, and from the device when the name does not say. */
static uint8_t kind_of(const struct name *name, const struct bal_vma *vma, const struct bal_device *device)
{
	if (name->n == 0)
		return vma->inode ? BAL_FILE : BAL_ANON;
	if (*name->at == '[')
		return kind_in_brackets(name);
	if (*name->at != '/')
		return BAL_SPECIAL; /* "anon_inode:[perf_event]", "socket:[123]": pages of a driver */
	if (starts(name, "/anon_hugepage") || starts(name, "/dev/hugepages"))
		return BAL_HUGETLB;
	if (starts(name, "/SYSV") || starts(name, "/memfd:") || starts(name, "/dev/shm/") ||
	    is(name, "/dev/zero (deleted)"))
		return BAL_SHMEM;
	if (is(name, "/dev/zero")) /* a private mapping of it is anonymous memory, mmap_zero() in drivers/char/mem.c */
		return BAL_ANON;
	if (starts(name, "/dev/")) /* a device's own pages, but for hugetlbfs mounted under another name there */
		return device && device->kind == BAL_HUGETLB ? BAL_HUGETLB : BAL_SPECIAL;
	return device ? (uint8_t)device->kind : BAL_FILE;
}

/* "start-end perms offset device inode   name": returns 1 for a mapping, 0 for one without any permission, or -EBADMSG. */
static int parse_line(struct line l, const char *text, struct bal_vma *vma, struct name *name)
{
	const char *perms;
	uint64_t offset, major, minor;

	if (!number(&l, 16, &vma->start) || !literal(&l, '-') || !number(&l, 16, &vma->end) || !literal(&l, ' '))
		return -EBADMSG;
	perms = l.at;
	if (l.end - l.at < 5 || perms[4] != ' ' || memchr(perms, ' ', 4) || vma->start >= vma->end)
		return -EBADMSG;
	l.at += 5;
	if (!number(&l, 16, &offset) || !literal(&l, ' ') || !number(&l, 16, &major) || !literal(&l, ':') ||
	    !number(&l, 16, &minor) || !literal(&l, ' ') || !number(&l, 10, &vma->inode) ||
	    (l.at < l.end && *l.at != ' '))
		return -EBADMSG;
	while (l.at < l.end && *l.at == ' ')
		l.at++;
	vma->device = (uint32_t)(major << 20 | minor);
	vma->flags = (perms[3] == 's' ? BAL_SHARED : 0) | (perms[2] == 'x' ? BAL_EXECUTABLE : 0) |
		     (perms[3] == 'p' && perms[1] == 'w' ? BAL_OWN : 0);
	name->at = l.at; /* it keeps its blanks, also those at the end */
	name->n = (size_t)(l.end - l.at);
	vma->name_at = (uint32_t)(l.at - text);
	vma->name_bytes = (uint32_t)name->n;
	return memcmp(perms, "---", 3) != 0;
}

static uint8_t hugetlb_stratum(uint64_t unit_bytes, const struct bal_vma *vma, struct bal_maps *ret)
{
	if (unit_bytes < BAL_PAGE_BYTES || unit_bytes > BAL_STEP_LIMIT || (unit_bytes & (unit_bytes - 1)) ||
	    (vma->start | vma->end) & (unit_bytes - 1))
		return BAL_NO_STRATUM;
	for (uint8_t i = BAL_HUGETLB_STRATUM; i < BAL_STRATA; i++) {
		if (!ret->pages[i])
			ret->unit_bytes[i] = unit_bytes;
		if (ret->unit_bytes[i] == unit_bytes)
			return i;
	}
	return BAL_NO_STRATUM;
}

static void put_in_stratum(struct bal_vma *vma, uint64_t huge_bytes, struct bal_maps *ret)
{
	uint64_t pages = (vma->end - vma->start) / BAL_PAGE_BYTES;

	vma->stratum = BAL_NO_STRATUM;
	if (vma->kind == BAL_SPECIAL || vma->end > INT64_MAX || (vma->start | vma->end) % BAL_PAGE_BYTES)
		return;
	if (vma->kind == BAL_HUGETLB)
		vma->stratum = hugetlb_stratum(huge_bytes, vma, ret);
	if (vma->stratum == BAL_NO_STRATUM) {
		unsigned bits = 64 - (unsigned)__builtin_clzll(pages);

		vma->stratum = bits / STRATUM_BITS < BAL_HUGETLB_STRATUM ? bits / STRATUM_BITS : BAL_HUGETLB_STRATUM - 1;
		ret->unit_bytes[vma->stratum] = BAL_PAGE_BYTES;
	}
	ret->pages[vma->stratum] += pages;
}

struct file_id {
	uint64_t inode;
	uint32_t device;
};

static int compare_files(const void *a, const void *b)
{
	const struct file_id *x = a, *y = b;

	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	return x->device < y->device ? -1 : x->device > y->device;
}

/*
 * Flag every mapping of a file of which any mapping is executable. Not those with its variables: a page that was written
 * to is the process's own.
 */
static int mark_programs(struct bal_vma *vmas, size_t n, size_t n_executable)
{
	struct file_id *files;
	size_t k = 0;

	if (!n_executable)
		return 0;
	files = calloc(n_executable, sizeof(*files));
	if (!files)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (vmas[i].kind == BAL_FILE && vmas[i].flags & BAL_EXECUTABLE)
			files[k++] = (struct file_id){ .inode = vmas[i].inode, .device = vmas[i].device };
	qsort(files, k, sizeof(*files), compare_files);
	for (size_t i = 0; i < n; i++) {
		struct file_id id = { .inode = vmas[i].inode, .device = vmas[i].device };

		if (vmas[i].kind == BAL_FILE && (vmas[i].flags & (BAL_OWN | BAL_EXECUTABLE)) != BAL_OWN &&
		    bsearch(&id, files, k, sizeof(*files), compare_files))
			vmas[i].flags |= BAL_PROGRAM;
	}
	free(files);
	return 0;
}

int bal_parse_maps(const char *text, size_t length, const struct bal_device *devices, size_t n_devices,
		   uint64_t huge_bytes, struct bal_vma *vmas, size_t capacity, struct bal_maps *ret)
{
	size_t n_executable = 0;
	uint64_t line_number = 0, guard_end = 0;

	memset(ret, 0, sizeof(*ret));
	if (length > UINT32_MAX)
		return -EINVAL;
	for (const char *at = text, *end = text + length; at < end;) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		struct line line = { .at = at, .end = newline ? newline : end };
		const struct bal_device *device;
		struct bal_vma *vma = &vmas[ret->n_vmas];
		struct name name;
		int rc;

		line_number++;
		at = line.end + 1;
		if (line.at == line.end)
			continue;
		if (ret->n_vmas >= capacity)
			return -ENOSPC;
		rc = parse_line(line, text, vma, &name);
		if (rc < 0) {
			ret->error_line = line_number;
			return rc;
		}
		if (!rc) {
			if (vma->end - vma->start <= BAL_GUARD_BYTES)
				guard_end = vma->end;
			continue;
		}
		if (vma->start == guard_end)
			vma->flags |= BAL_GUARDED;
		device = device_of(vma->device, devices, n_devices);
		vma->kind = kind_of(&name, vma, device);
		put_in_stratum(vma, device && device->page_bytes ? device->page_bytes : huge_bytes, ret);
		n_executable += vma->kind == BAL_FILE && vma->flags & BAL_EXECUTABLE;
		ret->n_vmas++;
	}
	return mark_programs(vmas, ret->n_vmas, n_executable);
}
