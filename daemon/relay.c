/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the buffers and pipes. The reference for correctness: every traffic case runs on it too. */
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* Kept for reuse by each thread; more are freed. An idle daemon holds little. */
#define POOL_BUFS 16
#define POOL_PIPES 64

/* A read of at least this much is taken for bulk; a splice of less turns back to copying. */
#define BULK_BYTES (32u * 1024)
#define SPLICE_MIN (8u * 1024)

void relay_pool_init(struct relay_pool *pool)
{
	*pool = (struct relay_pool){0};
}

static struct relay_buf *buf_get(struct relay_pool *pool)
{
	struct relay_buf *buf = pool->bufs;

	if (!buf)
		return malloc(sizeof(*buf) + RELAY_CHUNK);
	pool->bufs = buf->next;
	pool->nbufs--;
	return buf;
}

static void buf_put(struct relay_pool *pool, struct relay_buf *buf)
{
	if (pool->nbufs >= POOL_BUFS) {
		free(buf);
		return;
	}
	buf->next = pool->bufs;
	pool->bufs = buf;
	pool->nbufs++;
}

static struct relay_pipe *pipe_new(void)
{
	struct relay_pipe *pipe = malloc(sizeof(*pipe));
	int fds[2];

	if (!pipe)
		return NULL;
	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) {
		free(pipe);
		return NULL;
	}
	*pipe = (struct relay_pipe){.read_fd = fds[0], .write_fd = fds[1]};
	return pipe;
}

static void pipe_free(struct relay_pipe *pipe)
{
	close(pipe->read_fd);
	close(pipe->write_fd);
	free(pipe);
}

static struct relay_pipe *pipe_get(struct relay_pool *pool)
{
	struct relay_pipe *pipe = pool->pipes;

	if (!pipe)
		return pipe_new();
	pool->pipes = pipe->next;
	pool->npipes--;
	return pipe;
}

static void pipe_put(struct relay_pool *pool, struct relay_pipe *pipe)
{
	/* A pipe with bytes in it would give them to the next session. */
	if (pipe->bytes || pool->npipes >= POOL_PIPES) {
		pipe_free(pipe);
		return;
	}
	pipe->next = pool->pipes;
	pool->pipes = pipe;
	pool->npipes++;
}

void relay_pool_done(struct relay_pool *pool)
{
	while (pool->bufs) {
		struct relay_buf *buf = pool->bufs;

		pool->bufs = buf->next;
		free(buf);
	}
	while (pool->pipes) {
		struct relay_pipe *pipe = pool->pipes;

		pool->pipes = pipe->next;
		pipe_free(pipe);
	}
	*pool = (struct relay_pool){0};
}

static bool would_block(int err)
{
	return err == EAGAIN || err == EWOULDBLOCK || err == EINTR;
}

/* Each step returns bytes moved, 0 when the direction cannot go on now, or -1 with *ret set. */
static ssize_t stop(enum relay_result *ret, enum relay_result why)
{
	*ret = why;
	return -1;
}

static ssize_t flush_buf(
	struct relay_pool *pool, struct relay *relay, int target_fd, enum relay_result *ret)
{
	struct relay_buf *buf = relay->buf;
	ssize_t n = send(target_fd, buf->data + buf->start, buf->end - buf->start,
		MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0) {
		if (!would_block(errno))
			return stop(ret, RELAY_TARGET_ERROR);
		n = 0;
	}
	relay->written += (uint64_t)n;
	buf->start += (unsigned int)n;
	if (buf->start < buf->end) {
		relay->target_full = true;
		return n;
	}
	buf_put(pool, buf);
	relay->buf = NULL;
	return n;
}

static ssize_t flush_pipe(
	struct relay_pool *pool, struct relay *relay, int target_fd, enum relay_result *ret)
{
	struct relay_pipe *pipe = relay->pipe;
	ssize_t n = splice(pipe->read_fd, NULL, target_fd, NULL, pipe->bytes,
		SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

	if (n < 0) {
		if (!would_block(errno))
			return stop(ret, RELAY_TARGET_ERROR);
		n = 0;
	}
	relay->written += (uint64_t)n;
	pipe->bytes -= (unsigned int)n;
	if (pipe->bytes) {
		relay->target_full = true;
		return n;
	}
	pipe_put(pool, pipe);
	relay->pipe = NULL;
	return n;
}

static ssize_t source_empty(struct relay *relay)
{
	relay->source_dry = true;
	return 0;
}

static ssize_t fill_buf(struct relay_pool *pool, struct relay *relay, int source_fd, bool drain,
	enum relay_result *ret)
{
	struct relay_buf *buf = buf_get(pool);
	ssize_t n;

	if (!buf) {
		errno = ENOMEM;
		return stop(ret, RELAY_SOURCE_ERROR);
	}
	n = recv(source_fd, buf->data, RELAY_CHUNK, MSG_DONTWAIT);
	if (n <= 0) {
		int err = errno;

		buf_put(pool, buf);
		if (n == 0) {
			relay->eof = true;
			return source_empty(relay);
		}
		if (would_block(err))
			return source_empty(relay);
		errno = err;
		return stop(ret, RELAY_SOURCE_ERROR);
	}
	relay->read += (uint64_t)n;
	relay->bulk = (size_t)n >= BULK_BYTES;
	buf->start = 0;
	buf->end = (unsigned int)n;
	relay->buf = buf;
	if ((size_t)n < RELAY_CHUNK && !drain)
		relay->source_dry = true;
	return n;
}

static ssize_t fill_pipe(
	struct relay_pool *pool, struct relay *relay, int source_fd, enum relay_result *ret)
{
	struct relay_pipe *pipe = pipe_get(pool);
	ssize_t n;

	if (!pipe) {
		pool->pipe_failures++;
		relay->bulk = false;
		return fill_buf(pool, relay, source_fd, true, ret);
	}
	n = splice(source_fd, NULL, pipe->write_fd, NULL, RELAY_CHUNK,
		SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
	if (n <= 0) {
		int err = errno;

		pipe_put(pool, pipe);
		relay->bulk = false;
		/* Some kernels return 0 from splice without a FIN; recv() says what it is. */
		if (n == 0 || would_block(err))
			return fill_buf(pool, relay, source_fd, true, ret);
		if (err == EINVAL) {
			relay->copy_only = true;
			return fill_buf(pool, relay, source_fd, true, ret);
		}
		errno = err;
		return stop(ret, RELAY_SOURCE_ERROR);
	}
	relay->read += (uint64_t)n;
	relay->bulk = (size_t)n >= SPLICE_MIN;
	pipe->bytes = (unsigned int)n;
	relay->pipe = pipe;
	return n;
}

static ssize_t fill(struct relay_pool *pool, struct relay *relay, int source_fd, bool drain,
	enum relay_result *ret)
{
	if (relay->bulk && !relay->copy_only)
		return fill_pipe(pool, relay, source_fd, ret);
	return fill_buf(pool, relay, source_fd, drain, ret);
}

enum relay_result relay_run(struct relay_pool *pool, struct relay *relay, int source_fd,
	int target_fd, unsigned int share, bool drain, int *ret_errno)
{
	enum relay_result result = RELAY_IDLE;
	uint64_t limit = relay->written + share;
	ssize_t n = 0;

	while (n >= 0) {
		if (relay->buf || relay->pipe) {
			if (relay->target_full)
				return RELAY_IDLE;
			n = relay->buf ? flush_buf(pool, relay, target_fd, &result)
				       : flush_pipe(pool, relay, target_fd, &result);
			continue;
		}
		if (relay->eof)
			return RELAY_EOF;
		if (relay->source_dry)
			return RELAY_IDLE;
		if (relay->written >= limit)
			return RELAY_AGAIN;
		n = fill(pool, relay, source_fd, drain, &result);
	}
	*ret_errno = errno;
	return result;
}

void relay_done(struct relay_pool *pool, struct relay *relay)
{
	if (relay->buf)
		buf_put(pool, relay->buf);
	if (relay->pipe)
		pipe_put(pool, relay->pipe);
	relay->buf = NULL;
	relay->pipe = NULL;
}
