/* SPDX-License-Identifier: MIT */
/* What answered a load or a store, as the kernel tells it of a PMU's sample (PERF_SAMPLE_DATA_SRC). */
#ifndef BALANCERD_NATIVE_DATA_SRC_H
#define BALANCERD_NATIVE_DATA_SRC_H

#include <linux/perf_event.h>

#define BAL_LVLNUM_CXL 0x09 /* PERF_MEM_LVLNUM_CXL, which headers before Linux 6.1 do not have */

enum bal_level {
	BAL_NEAR,   /* a cache of the core itself: L1, its fill buffers, L2 */
	BAL_FAR,    /* another cache, a device, or nobody knows */
	BAL_MEMORY, /* of any node */
};

/* The level by either of its two names: kernels give mem_lvl, mem_lvl_num, or both. */
static inline enum bal_level bal_hit_level(union perf_mem_data_src src)
{
	if (src.mem_lvl & (PERF_MEM_LVL_LOC_RAM | PERF_MEM_LVL_REM_RAM1 | PERF_MEM_LVL_REM_RAM2))
		return BAL_MEMORY;
	if (src.mem_lvl & (PERF_MEM_LVL_L1 | PERF_MEM_LVL_LFB | PERF_MEM_LVL_L2))
		return BAL_NEAR;
	switch (src.mem_lvl_num) {
	case PERF_MEM_LVLNUM_RAM:
	case PERF_MEM_LVLNUM_PMEM:
	case BAL_LVLNUM_CXL:
		return BAL_MEMORY;
	case PERF_MEM_LVLNUM_L1:
	case PERF_MEM_LVLNUM_LFB:
	case PERF_MEM_LVLNUM_L2:
		return BAL_NEAR;
	default:
		return BAL_FAR;
	}
}

/* A miss of L3 went to memory, though it is not told to which (arch/x86/events/intel/ds.c, pebs_data_source). */
static inline enum bal_level bal_load_level(union perf_mem_data_src src)
{
	int is_l3 = src.mem_lvl & PERF_MEM_LVL_L3 || src.mem_lvl_num == PERF_MEM_LVLNUM_L3;

	return src.mem_lvl & PERF_MEM_LVL_MISS && is_l3 ? BAL_MEMORY : bal_hit_level(src);
}

/*
 * No PMU tells who answers a store in the end. What has missed L1 (intel/ds.c, precise_datala_hsw), or is not known to
 * have hit a cache (amd/ibs.c, perf_ibs_get_mem_lvl, after L1 and L2), counts as one to memory.
 */
static inline enum bal_level bal_store_level(union perf_mem_data_src src)
{
	int is_told = src.mem_lvl & PERF_MEM_LVL_HIT ||
		      (src.mem_lvl_num && src.mem_lvl_num != PERF_MEM_LVLNUM_NA);

	return src.mem_lvl & PERF_MEM_LVL_MISS || !is_told ? BAL_MEMORY : bal_hit_level(src);
}

#endif
