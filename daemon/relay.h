/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Moves the bytes of one direction in user space: small messages by recv and send, bulk by
 * splice(2) through a pipe. Bytes that the destination does not take wait in one buffer or one
 * pipe, which belong to the direction only while something is in them; the direction reads on when
 * they are empty. So a direction holds at most RELAY_CHUNK bytes. Knows no session and no event
 * loop; the sockets are non-blocking.
 */
#ifndef SHUNT_RELAY_H
#define SHUNT_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "util.h"

#define RELAY_CHUNK (128u * 1024)

struct relay_buf {
	struct relay_buf *next;
	unsigned int start, end; /* the waiting bytes in data[] */
	char data[];
};

struct relay_pipe {
	struct relay_pipe *next;
	int read_fd, write_fd;
	unsigned int bytes;
};

/* Free buffers and pipes of one thread. */
struct relay_pool {
	struct relay_buf *bufs;
	struct relay_pipe *pipes;
	unsigned int nbufs, npipes; /* that wait in the lists */
	uint64_t pipe_failures; /* splice was not possible for want of a pipe: copied instead */
};

void relay_pool_init(struct relay_pool *pool);
void relay_pool_done(struct relay_pool *pool);

struct relay {
	struct relay_buf *buf;
	struct relay_pipe *pipe;
	uint64_t read; /* bytes taken from the source since the connection began */
	uint64_t written; /* bytes the destination accepted */
	bool copy_only; /* splice does not see bytes that a verdict program passed, or is not
			   supported */
	bool bulk; /* the last read was large: splice next time */
	bool source_dry; /* the source had no more; cleared by the caller when it becomes readable
			  */
	bool target_full; /* the destination took no more; cleared by the caller when it becomes
			     writable */
	bool eof; /* the source's FIN was read */
};

enum relay_result {
	RELAY_IDLE, /* nothing to do until an event clears source_dry or target_full */
	RELAY_AGAIN, /* stopped after its share of bytes; call again soon */
	RELAY_EOF, /* the FIN was read and every byte before it was written */
	RELAY_SOURCE_ERROR, /* *ret_errno says which */
	RELAY_TARGET_ERROR,
};

/*
 * Moves up to `share` bytes. `drain` reads until the source says EAGAIN, not just until a short
 * read: for sources whose end of file or passed bytes give no further event.
 */
enum relay_result relay_run(struct relay_pool *pool, struct relay *relay, int source_fd,
	int target_fd, unsigned int share, bool drain, int *ret_errno);

/* Bytes that were read and not yet written. */
static inline uint64_t relay_waiting(const struct relay *relay)
{
	return relay->read - relay->written;
}

/* Gives back what the direction holds, with the bytes in it. */
void relay_done(struct relay_pool *pool, struct relay *relay);

#endif
