// SPDX-License-Identifier: MIT
/* Gives each file that it is told to a harness, once: for tools that a fuzzer's own main() is in the way of. */
#include "fuzz.h"

#define MOST_BYTES 65536

int main(int argc, char **argv)
{
	static uint8_t bytes[MOST_BYTES];

	for (int i = 1; i < argc; i++) {
		FILE *file = fopen(argv[i], "rb");
		uint8_t *data;
		size_t n;

		MUST(file);
		n = fread(bytes, 1, sizeof(bytes), file);
		MUST(!fclose(file));
		data = exactly(n);
		memcpy(data, bytes, n);
		LLVMFuzzerTestOneInput(data, n);
		free(data);
	}
	return 0;
}
