// SPDX-License-Identifier: MIT
/*
 * A command to which the kernel refuses some system calls, as a container's or a unit's seccomp filter does.
 *
 *   without NUMBER[,NUMBER...] COMMAND...
 *
 * Each of these calls (x86-64 numbers, sixteen at most) ends with EPERM.
 */
#include "program.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MOST_CALLS 16

int main(int argc, char **argv)
{
	struct sock_filter filter[2 * MOST_CALLS + 2];
	struct sock_fprog program = { .filter = filter };
	unsigned short n = 0;
	char *word;

	if (argc < 3) {
		fprintf(stderr, "usage: without NUMBER[,NUMBER...] COMMAND...\n");
		return 2;
	}
	filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (word = strtok(argv[1], ","); word && n < 2 * MOST_CALLS; word = strtok(NULL, ",")) {
		filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)atoi(word), 0, 1);
		filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	}
	filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program.len = n;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		fail("seccomp");
	execvp(argv[2], argv + 2);
	fail(argv[2]);
}
