// SPDX-License-Identifier: MIT
/* A call that no harness foresaw must not be taken for one that failed. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/uio.h>

static void give_up(const char *call)
{
	fprintf(stderr, "nobody answers %s\n", call);
	abort();
}

__attribute__((weak)) long answer_syscall(long number, ...)
{
	fprintf(stderr, "number %ld: ", number);
	give_up("syscall");
	return -1;
}

__attribute__((weak)) ssize_t answer_process_vm_readv(pid_t pid, const struct iovec *here, unsigned long n_here,
						      const struct iovec *there, unsigned long n_there,
						      unsigned long flags)
{
	(void)pid, (void)here, (void)n_here, (void)there, (void)n_there, (void)flags;
	give_up("process_vm_readv");
	return -1;
}

__attribute__((weak)) int answer_openat(int directory, const char *path, int flags, ...)
{
	(void)directory, (void)path, (void)flags;
	give_up("openat");
	return -1;
}

__attribute__((weak)) ssize_t answer_pread(int fd, void *to, size_t n, off_t at)
{
	(void)fd, (void)to, (void)n, (void)at;
	give_up("pread");
	return -1;
}

__attribute__((weak)) int answer_close(int fd)
{
	(void)fd;
	give_up("close");
	return -1;
}
