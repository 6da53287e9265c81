/* SPDX-License-Identifier: MIT */
/*
 * The core is compiled for the harnesses with these names in place of the system's, so that no harness asks this
 * machine's kernel. Each harness that leads to a call answers it; nobody answers the others.
 */
#ifndef BALANCERD_FUZZ_CALLS_H
#define BALANCERD_FUZZ_CALLS_H

#define syscall answer_syscall
#define process_vm_readv answer_process_vm_readv
#define openat answer_openat
#define pread answer_pread
#define close answer_close

#endif
