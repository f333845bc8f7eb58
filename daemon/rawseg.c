/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the headers. The kernel fills in the IP checksum and length (raw(7)), not the TCP checksum.
 */
#include "rawseg.h"

#include <errno.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define TIMESTAMP_BYTES 12 /* two NOPs and the option: kind, length, value, echo */

struct segment {
	struct iphdr ip;
	struct tcphdr tcp;
	uint8_t rest[TIMESTAMP_BYTES + RAWSEG_MAX];
};

int rawseg_open(void)
{
	int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW); /* implies IP_HDRINCL */

	return fd < 0 ? -errno : fd;
}

static int queue_seq(int fd, int queue, uint32_t *ret)
{
	socklen_t len = sizeof(*ret);

	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) < 0 ||
		getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, ret, &len) < 0)
		return -errno;
	return 0;
}

static int read_numbers(struct rawseg *seg, int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);
	int on = TCP_REPAIR_ON, off = TCP_REPAIR_OFF_NO_WP;
	int err;

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return -errno;
	seg->timestamps = info.tcpi_options & TCPI_OPT_TIMESTAMPS;
	len = sizeof(seg->timestamp);
	if (getsockopt(fd, IPPROTO_TCP, TCP_TIMESTAMP, &seg->timestamp, &len) < 0)
		return -errno;
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0)
		return -errno;
	err = queue_seq(fd, TCP_SEND_QUEUE, &seg->next_seq);
	err = err ?: queue_seq(fd, TCP_RECV_QUEUE, &seg->ack);
	/* Without the window probe that an ordinary end of repair mode sends. */
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)) < 0)
		return -errno;
	return err;
}

int rawseg_init(struct rawseg *seg, int fd)
{
	socklen_t from_len = sizeof(seg->from), to_len = sizeof(seg->to);

	memset(seg, 0, sizeof(*seg));
	if (getsockname(fd, (struct sockaddr *)&seg->from, &from_len) < 0 ||
		getpeername(fd, (struct sockaddr *)&seg->to, &to_len) < 0)
		return -errno;
	if (seg->from.sin_family != AF_INET)
		return -EAFNOSUPPORT;
	return read_numbers(seg, fd);
}

static uint32_t sum16(const void *data, size_t len, uint32_t sum)
{
	const uint8_t *p = data;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	if (len % 2)
		sum += (uint32_t)(p[len - 1] << 8);
	return sum;
}

static uint16_t tcp_checksum(const struct segment *segment, size_t tcp_len)
{
	uint32_t sum = IPPROTO_TCP + (uint32_t)tcp_len;

	sum = sum16(&segment->ip.saddr, 8, sum); /* both addresses: the pseudo header */
	sum = sum16(&segment->tcp, tcp_len, sum);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

/* A receiver may drop segments without the option once it was negotiated (RFC 7323 3.2). */
static size_t put_timestamps(const struct rawseg *seg, uint8_t *out)
{
	uint32_t value = htonl(seg->timestamp);

	if (!seg->timestamps)
		return 0;
	memset(out, 0, TIMESTAMP_BYTES);
	out[0] = out[1] = TCPOPT_NOP;
	out[2] = TCPOPT_TIMESTAMP;
	out[3] = TCPOLEN_TIMESTAMP;
	memcpy(out + 4, &value, sizeof(value));
	return TIMESTAMP_BYTES;
}

int rawseg_send(int raw_fd, const struct rawseg *seg, int offset, const void *data, size_t len)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = seg->to.sin_addr};
	struct segment segment = {0};
	size_t options, tcp_len;

	if (len > RAWSEG_MAX)
		return -EMSGSIZE;
	segment.ip.version = 4;
	segment.ip.ihl = sizeof(segment.ip) / 4;
	segment.ip.ttl = 64;
	segment.ip.protocol = IPPROTO_TCP;
	segment.ip.saddr = seg->from.sin_addr.s_addr;
	segment.ip.daddr = seg->to.sin_addr.s_addr;
	options = put_timestamps(seg, segment.rest);
	memcpy(segment.rest + options, data, len);
	tcp_len = sizeof(segment.tcp) + options + len;
	segment.tcp.source = seg->from.sin_port;
	segment.tcp.dest = seg->to.sin_port;
	segment.tcp.seq = htonl(seg->next_seq + (uint32_t)offset);
	segment.tcp.ack_seq = htonl(seg->ack);
	segment.tcp.doff = (sizeof(segment.tcp) + options) / 4 & 0xf;
	segment.tcp.ack = 1;
	segment.tcp.psh = 1;
	segment.tcp.window = htons(0xffff);
	segment.tcp.check = tcp_checksum(&segment, tcp_len);
	if (sendto(raw_fd, &segment, sizeof(segment.ip) + tcp_len, 0, (struct sockaddr *)&to,
		    sizeof(to)) < 0)
		return -errno;
	return 0;
}
