/* SPDX-License-Identifier: MIT */
/* What perf.c opens and drain.c reads: which fields a sample has, and in which order. */
#ifndef BALANCERD_NATIVE_PERF_H
#define BALANCERD_NATIVE_PERF_H

#include <stdint.h>

#include <linux/perf_event.h>

#include "core.h"

/* The fields of a sample stand in the order that perf_event_open(2) gives, whatever the order of the bits. */
#define BAL_SAMPLE_REGISTERS \
	(PERF_SAMPLE_IP | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU | PERF_SAMPLE_REGS_USER)
#define BAL_SAMPLE_FAULTS (PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_ADDR | PERF_SAMPLE_CPU)

/* arch/x86/include/uapi/asm/perf_regs.h: AX, BX, CX, DX, SI, DI, BP, and R8 to R15. Not SP: stacks do not count. */
#if defined(__x86_64__)
#define BAL_REGISTER_MASK UINT64_C(0xff007f)
/* arch/arm64/include/uapi/asm/perf_regs.h: X0 to X28 */
#elif defined(__aarch64__)
#define BAL_REGISTER_MASK UINT64_C(0x1fffffff)
#else
#define BAL_REGISTER_MASK UINT64_C(0)
#endif
#define BAL_REGISTERS_HERE __builtin_popcountll(BAL_REGISTER_MASK)

struct bal_registers_sample {
	struct perf_event_header header;
	uint64_t ip;
	uint32_t pid, tid;
	uint64_t time_ns;
	uint32_t cpu, reserved;
	uint64_t abi; /* PERF_SAMPLE_REGS_ABI_NONE: the rest is not there */
	uint64_t value[BAL_REGISTERS];
};

struct bal_fault_sample {
	struct perf_event_header header;
	uint32_t pid, tid;
	uint64_t time_ns;
	uint64_t address;
	uint32_t cpu, reserved;
};

/* Of loads and stores. The address of the frame is there only where the kernel lets one have it. */
#define BAL_SAMPLE_MEMORY                                                                                 \
	(PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_ADDR | PERF_SAMPLE_CPU | PERF_SAMPLE_WEIGHT | \
	 PERF_SAMPLE_DATA_SRC)

struct bal_memory_sample {
	struct perf_event_header header;
	uint32_t pid, tid;
	uint64_t time_ns;
	uint64_t address;
	uint32_t cpu, reserved;
	uint64_t cycles;    /* latency, 0: not told */
	uint64_t data_src;  /* union perf_mem_data_src */
	uint64_t frame;	    /* PERF_SAMPLE_PHYS_ADDR, 0: not told */
};

struct bal_lost_record {
	struct perf_event_header header;
	uint64_t id;
	uint64_t lost;
};

#endif
