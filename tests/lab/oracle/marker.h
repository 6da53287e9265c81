/* SPDX-License-Identifier: MIT */
/*
 * A marker: a seven-byte NOP with a displacement that no compiler writes. The plugin sees it executed by user code and
 * writes down all counters; without the plugin it does nothing.
 */
#ifndef ORACLE_MARKER_H
#define ORACLE_MARKER_H

#define MARKER_MAGIC 0x5abe0000u /* the number, 0 to 65535, is in the lower half */

#endif
