/* SPDX-License-Identifier: BSD-2-Clause */
#include "handover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x73686e74u /* "shnt" */
#define SIZE_MAX_BYTES (64u * 1024 * 1024)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

struct header {
	uint32_t magic, version;
	uint32_t nsockets, name_len;
	uint64_t text_len;
};

static int write_all(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

struct handover_socket handover_socket(const struct bound *bound)
{
	return (struct handover_socket){
		.id = bound->id,
		.listener = bound->listener,
		.thread = bound->thread,
		.shared = bound->shared,
		.tcp = bound->tcp,
		.why = bound->why,
	};
}

static int write_sockets(int fd, const struct bounds *bounds)
{
	int err = 0;

	for (unsigned int i = 0; i < bounds->n && !err; i++) {
		struct handover_socket socket = handover_socket(&bounds->v[i]);

		err = write_all(fd, &socket, sizeof(socket));
	}
	return err;
}

int handover_write(const char *name, const char *text, size_t len, const struct bounds *bounds)
{
	struct header header = {
		.magic = MAGIC,
		.version = HANDOVER_VERSION,
		.nsockets = bounds->n,
		.name_len = (uint32_t)strlen(name),
		.text_len = len,
	};
	int fd = memfd_create("shunt-conf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int err;

	if (fd < 0)
		return -errno;
	err = write_all(fd, &header, sizeof(header));
	err = err ?: write_sockets(fd, bounds);
	err = err ?: write_all(fd, name, header.name_len);
	err = err ?: write_all(fd, text, len);
	if (!err && fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		err = -errno;
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

static int check(const struct header *header, size_t size)
{
	uint64_t need = sizeof(*header) +
			header->nsockets * (uint64_t)sizeof(struct handover_socket) +
			header->name_len;

	if (header->magic != MAGIC)
		return -EPROTO;
	if (header->version != HANDOVER_VERSION)
		return -EINVAL;
	return need <= size && header->text_len == size - need ? 0 : -EPROTO;
}

static char *copy_text(const char *at, size_t len)
{
	char *text = malloc(len + 1);

	if (text) {
		memcpy(text, at, len);
		text[len] = '\0';
	}
	return text;
}

static int copy(const char *map, const struct header *header, struct handover *ret)
{
	size_t bytes = header->nsockets * sizeof(struct handover_socket);
	const char *at = map + sizeof(*header);
	struct handover handover = {
		.nsockets = header->nsockets,
		.len = header->text_len,
		.sockets = malloc(bytes + 1),
		.name = copy_text(at + bytes, header->name_len),
		.text = copy_text(at + bytes + header->name_len, header->text_len),
	};

	if (!handover.sockets || !handover.name || !handover.text) {
		handover_done(&handover);
		return -ENOMEM;
	}
	memcpy(handover.sockets, at, bytes);
	*ret = handover;
	return 0;
}

int handover_read(int fd, struct handover *ret)
{
	struct header header;
	struct stat st;
	char *map;
	int err;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < (off_t)sizeof(header) || st.st_size > (off_t)SIZE_MAX_BYTES)
		return -EPROTO;
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	memcpy(&header, map, sizeof(header));
	err = check(&header, (size_t)st.st_size);
	err = err ?: copy(map, &header, ret);
	munmap(map, (size_t)st.st_size);
	return err;
}

void handover_done(struct handover *handover)
{
	free(handover->name);
	free(handover->text);
	free(handover->sockets);
	*handover = (struct handover){0};
}
