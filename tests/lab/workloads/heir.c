// SPDX-License-Identifier: MIT
/*
 * Who takes the pid of somebody that is gone: forks until a child has it, which becomes COMMAND; or has it already.
 *
 *   heir PID COMMAND...
 *
 * Children with other pids exit at once. It ends as COMMAND does, with 128 and the number of the signal that ended it. A
 * small kernel.pid_max makes the kernel come round to PID soon. COMMAND has its addresses where any other process started
 * without randomisation has them.
 */
#include "program.h"

#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_FORKS 200000

int main(int argc, char **argv)
{
	pid_t wanted, child;
	int status;

	if (argc < 3 || atoi(argv[1]) < 1) {
		fprintf(stderr, "usage: heir PID COMMAND...\n");
		return 2;
	}
	wanted = atoi(argv[1]);
	if (personality(ADDR_NO_RANDOMIZE) < 0)
		fail("personality");
	if (getpid() == wanted) {
		execvp(argv[2], argv + 2);
		fail("execvp");
	}
	for (int i = 0; i < MOST_FORKS; i++) {
		child = fork();
		if (child < 0)
			fail("fork");
		if (child == 0) {
			if (getpid() != wanted)
				_exit(0);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			execvp(argv[2], argv + 2);
			_exit(127);
		}
		if (waitpid(child, &status, 0) < 0)
			fail("waitpid");
		if (child == wanted)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
	fprintf(stderr, "heir: pid %d did not come\n", wanted);
	return 2;
}
