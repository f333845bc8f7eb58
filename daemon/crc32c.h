/* SPDX-License-Identifier: BSD-2-Clause */
/* CRC-32C (Castagnoli), as the checksum of PROXY protocol headers. Pure. */
#ifndef SHUNT_CRC32C_H
#define SHUNT_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Begin with 0; the result of one part goes into the next. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
