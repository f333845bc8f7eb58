/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Four bits a step: a header has some 60 bytes and comes once in a session, so that neither a large
 * table nor the instruction of some processors pays. Debian's libisal has it too (crc32_iscsi), but
 * is a storage library that not each architecture has.
 */
#include "crc32c.h"

/* Of each half byte: four steps with the reflected polynomial, 0x82f63b78 (RFC 4960, appendix B,
 * has it unreflected). */
static const uint32_t nibbles[16] = {
	0x00000000,
	0x105ec76f,
	0x20bd8ede,
	0x30e349b1,
	0x417b1dbc,
	0x5125dad3,
	0x61c69362,
	0x7198540d,
	0x82f63b78,
	0x92a8fc17,
	0xa24bb5a6,
	0xb21572c9,
	0xc38d26c4,
	0xd3d3e1ab,
	0xe330a81a,
	0xf36e6f75,
};

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
	const uint8_t *bytes = data;

	crc = ~crc;
	for (size_t i = 0; i < len; i++) {
		crc ^= bytes[i];
		crc = crc >> 4 ^ nibbles[crc & 15];
		crc = crc >> 4 ^ nibbles[crc & 15];
	}
	return ~crc;
}
