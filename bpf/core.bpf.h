/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* The few kernel fields the programs read. libbpf relocates the offsets to the running kernel
 * (CO-RE). */
#ifndef SHUNT_CORE_BPF_H
#define SHUNT_CORE_BPF_H

#define CORE __attribute__((preserve_access_index))

struct sock {
	int sk_wmem_queued;
	int sk_sndbuf;
} CORE;

struct inet_sock {
	struct sock sk;
} CORE;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
} CORE;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 write_seq;
	__u32 copied_seq;
} CORE;

#endif
