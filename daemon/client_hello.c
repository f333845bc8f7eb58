/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the reading of a ClientHello: first it is put together from its records, then read. */
#include "client_hello.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define RECORD_HEAD_LEN 5
#define RECORD_HANDSHAKE 22
#define RECORD_MAX 16384 /* of a plain record (RFC 8446, 5.1) */
#define MESSAGE_HEAD_LEN 4
#define MESSAGE_CLIENT_HELLO 1
#define VERSION_MAJOR 3
/* Version, random, no session ID, one cipher suite, one compression method. */
#define BODY_MIN (2 + 32 + 1 + 2 + 2 + 1 + 1)
#define EXTENSION_SERVER_NAME 0
#define NAME_TYPE_HOST 0

/* --- the message out of its records --------------------------------------------------------------
 */

struct message {
	uint8_t bytes[CLIENT_HELLO_MAX];
	size_t len, total; /* of which its head, until that is read */
};

static size_t get16(const uint8_t *bytes)
{
	return (size_t)bytes[0] << 8 | bytes[1];
}

/* As far as the bytes go. The minor version counts for nothing (5.1): clients of TLS 1.3 say 1.0 or
 * 1.2. An empty record is not allowed; without it, records would be without bound. */
static int check_record_head(const uint8_t *head, size_t len)
{
	if (len > 0 && head[0] != RECORD_HANDSHAKE)
		return -EPROTO;
	if (len > 1 && head[1] != VERSION_MAJOR)
		return -EPROTO;
	if (len >= RECORD_HEAD_LEN && (!get16(head + 3) || get16(head + 3) > RECORD_MAX))
		return -EPROTO;
	return 0;
}

static int check_message_head(struct message *message)
{
	const uint8_t *head = message->bytes;
	size_t body;

	if (message->len > 0 && head[0] != MESSAGE_CLIENT_HELLO)
		return -EPROTO;
	if (message->len < MESSAGE_HEAD_LEN)
		return 0;
	body = (size_t)head[1] << 16 | get16(head + 2);
	if (body < BODY_MIN)
		return -EPROTO;
	if (body > CLIENT_HELLO_MAX - MESSAGE_HEAD_LEN)
		return -EMSGSIZE;
	message->total = MESSAGE_HEAD_LEN + body;
	return 0;
}

/* Takes what the message still lacks; *ret_used of len. */
static int add_bytes(struct message *message, const uint8_t *data, size_t len, size_t *ret_used)
{
	size_t used = 0;

	while (used < len && message->len < message->total) {
		size_t n = MIN(len - used, message->total - message->len);
		int err;

		memcpy(message->bytes + message->len, data + used, n);
		message->len += n;
		used += n;
		err = check_message_head(message);
		if (err < 0)
			return err;
	}
	*ret_used = used;
	return 0;
}

/* The bytes on the wire up to the end of the message into *ret_wire and 1; or what they are at
 * least, and 0: what lacks may come in this record, and the rest in one more. */
static int gather(const uint8_t *data, size_t len, struct message *message, size_t *ret_wire)
{
	size_t at = 0;

	message->len = 0;
	message->total = MESSAGE_HEAD_LEN;
	for (;;) {
		size_t left = len - at, size, used, missing;
		int err = check_record_head(data + at, left);

		if (err < 0)
			return err;
		if (left < RECORD_HEAD_LEN) {
			*ret_wire = at + RECORD_HEAD_LEN + message->total - message->len;
			return 0;
		}
		size = get16(data + at + 3);
		at += RECORD_HEAD_LEN;
		err = add_bytes(message, data + at, MIN(size, len - at), &used);
		if (err < 0)
			return err;
		missing = message->total - message->len;
		if (!missing || len - at < size) {
			*ret_wire = at + used + missing;
			if (used + missing > size)
				*ret_wire += RECORD_HEAD_LEN;
			return !missing;
		}
		at += size;
	}
}

/* --- reading the message -------------------------------------------------------------------------
 */

struct reader {
	const uint8_t *at;
	size_t left;
};

static bool take(struct reader *from, size_t len, struct reader *ret)
{
	if (from->left < len)
		return false;
	*ret = (struct reader){from->at, len};
	from->at += len;
	from->left -= len;
	return true;
}

static bool take_number(struct reader *from, unsigned int bytes, size_t *ret)
{
	struct reader number;

	if (!take(from, bytes, &number))
		return false;
	*ret = bytes == 1 ? number.at[0] : get16(number.at);
	return true;
}

/* A vector with its length in front (RFC 8446, 3.4). */
static bool take_vector(struct reader *from, unsigned int len_bytes, size_t min, struct reader *ret)
{
	size_t len;

	return take_number(from, len_bytes, &len) && len >= min && take(from, len, ret);
}

/* The value of the extension (RFC 6066, 3). Types of names other than that of a host were never
 * defined, but are to have a length of 16 bits; two of one type are not allowed. */
static int read_server_names(struct reader value, struct client_hello *hello)
{
	struct reader names, name;
	bool found = false;

	if (!take_vector(&value, 2, 1, &names) || value.left)
		return -EPROTO;
	while (names.left) {
		size_t type;

		if (!take_number(&names, 1, &type) || !take_vector(&names, 2, 1, &name))
			return -EPROTO;
		if (type != NAME_TYPE_HOST)
			continue;
		if (found || server_name_normalize(name.at, name.left, hello->server_name))
			return -EPROTO;
		found = true;
	}
	return found ? 0 : -ENOENT;
}

/* Each is looked at up to the last, so that a hello is sound as a whole or not at all. */
static int read_extensions(struct reader extensions, struct client_hello *hello)
{
	struct reader value;
	bool seen = false;
	int found = -ENOENT;

	while (extensions.left) {
		size_t type;

		if (!take_number(&extensions, 2, &type) || !take_vector(&extensions, 2, 0, &value))
			return -EPROTO;
		if (type != EXTENSION_SERVER_NAME)
			continue;
		if (seen) /* no extension may come twice (RFC 8446, 4.2) */
			return -EPROTO;
		seen = true;
		found = read_server_names(value, hello);
	}
	return found;
}

/* RFC 8446, 4.1.2. */
static int read_hello(struct reader body, struct client_hello *hello)
{
	struct reader part;
	size_t version;

	if (!take_number(&body, 2, &version) || version >> 8 != VERSION_MAJOR)
		return -EPROTO;
	if (!take(&body, 32, &part)) /* random */
		return -EPROTO;
	if (!take_vector(&body, 1, 0, &part) || part.left > 32) /* session ID */
		return -EPROTO;
	if (!take_vector(&body, 2, 2, &part) || part.left % 2) /* cipher suites */
		return -EPROTO;
	if (!take_vector(&body, 1, 1, &part)) /* compression methods */
		return -EPROTO;
	if (!body.left) /* before TLS 1.3 there may be no extensions */
		return -ENOENT;
	if (!take_vector(&body, 2, 0, &part) || body.left)
		return -EPROTO;
	return read_extensions(part, hello);
}

int client_hello_parse(const void *data, size_t len, struct client_hello *ret)
{
	struct client_hello hello = {0};
	struct message message;
	size_t wire;
	int found, whole = gather(data, len, &message, &wire);

	if (whole < 0)
		return whole;
	if (wire > CLIENT_HELLO_WIRE_MAX)
		return -EMSGSIZE;
	if (!whole) {
		ret->need = wire;
		return 0;
	}
	found = read_hello(
		(struct reader){message.bytes + MESSAGE_HEAD_LEN, message.len - MESSAGE_HEAD_LEN},
		&hello);
	if (found < 0)
		return found;
	*ret = hello;
	return (int)wire;
}

/* --- names ---------------------------------------------------------------------------------------
 */

/* Not tolower(): that of the locale. */
static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

const char *server_name_normalize(const void *text, size_t len, char ret[SERVER_NAME_MAX + 1])
{
	const char *chars = text;
	size_t label = 0;

	/* The dot at the end is not allowed (RFC 6066, 3), but sent. */
	if (len && chars[len - 1] == '.')
		len--;
	if (!len)
		return "the name is empty";
	if (len > SERVER_NAME_MAX)
		return "the name is longer than 253 characters";
	for (size_t i = 0; i <= len; i++) {
		if (i == len || chars[i] == '.') {
			if (!label)
				return "the name has two dots in a row, or one at its start";
			label = 0;
		} else if (!is_name_char(lower(chars[i]))) {
			return "the name has other characters than letters, digits, '-', '_' and "
			       "dots (others are written as xn--...)";
		} else if (++label > 63) {
			return "the name has more than 63 characters between two dots";
		}
	}
	for (size_t i = 0; i < len; i++)
		ret[i] = lower(chars[i]);
	ret[len] = '\0';
	return NULL;
}
