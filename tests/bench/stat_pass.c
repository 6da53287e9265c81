// SPDX-License-Identifier: MIT
/*
 * stat_pass: for each line of standard input, one pass as numad makes it: opendir, then open, read, sscanf and close of
 * the stat of every process. Prints the microseconds of CPU time (user and system) that it took.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static double cpu_microseconds(void)
{
	struct rusage use;

	getrusage(RUSAGE_SELF, &use);
	return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e6 +
	       (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

static void read_one(const char *name)
{
	unsigned long long user, system, start, rss;
	char path[300], text[2048], *shut;
	int fd, threads, cpu;
	ssize_t got;

	snprintf(path, sizeof(path), "/proc/%s/stat", name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (got <= 0)
		return;
	text[got] = '\0';
	shut = strrchr(text, ')');
	if (shut)
		sscanf(shut + 2,
		       "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %d %*d %llu %*u %llu %*u %*u "
		       "%*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*d %d",
		       &user, &system, &threads, &start, &rss, &cpu);
}

int main(void)
{
	while (getchar() != EOF) {
		double began = cpu_microseconds();
		const struct dirent *entry;
		DIR *directory = opendir("/proc");

		if (!directory)
			return 1;
		while ((entry = readdir(directory)))
			if (isdigit((unsigned char)entry->d_name[0]))
				read_one(entry->d_name);
		closedir(directory);
		printf("%.0f\n", cpu_microseconds() - began);
		fflush(stdout);
	}
	return 0;
}
