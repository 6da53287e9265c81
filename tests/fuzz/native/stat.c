// SPDX-License-Identifier: MIT
/* One stat line: bal_read_stat(). What it understands is said again by what it found; then it must find the same. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "fuzz.h"
#include "procfs.h"

static const char *shown;
static size_t n_shown;
static int failure;

ssize_t answer_pread(int fd, void *to, size_t n, off_t at)
{
	MUST(fd == 7 && at == 0);
	if (failure) {
		errno = failure;
		return -1;
	}
	for (size_t i = 0; i < n; i++) /* what lies behind the text looks like more of it */
		((char *)to)[i] = i % 2 ? ' ' : '1';
	n = n < n_shown ? n : n_shown;
	memcpy(to, shown, n);
	return (ssize_t)n;
}

static int read_shown(const char *text, size_t n, struct bal_stat *ret)
{
	shown = text;
	n_shown = n;
	memset(ret, 0xa5, sizeof(*ret));
	return bal_read_stat(7, ret);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bal_stat stat, again;
	char line[4096];
	int rc, n;

	failure = size && data[0] == 0xff ? size % 2 ? ESRCH : EACCES : 0;
	rc = read_shown((const char *)data, size, &stat);
	if (failure)
		MUST(rc == -failure);
	else
		MUST(rc == 0 || rc == (size ? -EBADMSG : -ESRCH));
	if (rc)
		return 0;
	MUST(!stat.comm[BAL_COMM] && size > 2 * (BAL_STAT_FIELDS - PPID));
	n = snprintf(line, sizeof(line), "1 (%s) S", stat.comm);
	for (int i = PPID; i < BAL_STAT_FIELDS; i++)
		n += snprintf(line + n, sizeof(line) - (size_t)n, i % 2 ? " %llu" : " %lld", (unsigned long long)stat.field[i]);
	MUST(read_shown(line, (size_t)n, &again) == 0);
	MUST(!strcmp(stat.comm, again.comm));
	MUST(!memcmp(stat.field + PPID, again.field + PPID, (BAL_STAT_FIELDS - PPID) * sizeof(*stat.field)));
	return 0;
}
