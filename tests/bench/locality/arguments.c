// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <string.h>

#include "load.h"

static unsigned long number(const char **text, const char *whole)
{
	char *end;
	unsigned long value = strtoul(*text, &end, 10);

	if (end == *text)
		reject(whole);
	*text = end;
	return value;
}

static void expect(const char **text, const char *words, const char *whole)
{
	size_t length = strlen(words);

	if (strncmp(*text, words, length))
		reject(whole);
	*text += length;
}

static void parse_touch(struct touch *touch, const char **text, const char *whole)
{
	do {
		if (touch->n_places == MAX_PLACES)
			reject(whole);
		touch->places[touch->n_places].cpu = (int)number(text, whole);
		touch->places[touch->n_places].n_pages = SIZE_MAX / MAX_PLACES;
		if (**text == ':') {
			++*text;
			touch->places[touch->n_places].n_pages = number(text, whole);
		}
		touch->n_places++;
	} while (**text == ',' && ++*text);
}

static void parse_process(struct load *load, const char *whole, bool is_huge)
{
	struct process *process = &load->processes[load->n_processes];
	const char *text = whole;

	process->load = load;
	process->first_thread = load->n_threads;
	do {
		int i = process->n_parts++;

		if (process->shared || load->n_threads == MAX_THREADS)
			reject(whole);
		if (*text == 'a') {
			expect(&text, "all", whole);
			process->shared = &process->parts[i];
		} else {
			process->cpus[process->n_threads++] = (int)number(&text, whole);
			load->n_threads++;
		}
		expect(&text, "=", whole);
		process->bytes[i] = number(&text, whole) << 20;
		expect(&text, "@", whole);
		parse_touch(&process->touches[i], &text, whole);
		process->parts[i].is_huge = is_huge;
		process->parts[i].number = (uint32_t)(load->n_processes * (MAX_THREADS + 1) + i);
	} while (*text == '/' && text++);
	if (*text || !process->n_threads)
		reject(whole);
}

static void parse_access(struct load *load, const char *whole)
{
	static const char *const names[] = { [SCAN] = "scan", [LIST] = "list", [STORM] = "storm" };
	const char *text = whole;

	for (int i = 0; i <= STORM; i++)
		if (names[i] && !strcmp(whole, names[i])) {
			load->access = i;
			return;
		}
	expect(&text, "phases:", whole);
	load->units_a_phase = number(&text, whole);
	if (*text || !load->units_a_phase)
		reject(whole);
	load->access = PHASES;
}

void load_parse(struct load *load, int argc, char **argv)
{
	const char *text = argv[1], *more = argv[2];
	bool is_huge = !strcmp(argv[4], "hugetlb");

	load->work = number(&text, argv[1]);
	load->rounds = number(&more, argv[2]);
	parse_access(load, argv[3]);
	if (!is_huge && strcmp(argv[4], "base"))
		reject(argv[4]);
	for (; load->n_processes < argc - 5 && load->n_processes < MAX_THREADS; load->n_processes++)
		parse_process(load, argv[5 + load->n_processes], is_huge);
	if (*text || *more || load->n_processes < argc - 5)
		reject("arguments");
}
