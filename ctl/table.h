/* SPDX-License-Identifier: BSD-2-Clause */
/* Aligned columns. */
#ifndef SHUNT_CTL_TABLE_H
#define SHUNT_CTL_TABLE_H

#include <stdio.h>

struct table;

/* columns: "NAME|>NUMBER|...": '>' aligns to the right. Without memory the table stays short; no
 * call fails. */
struct table *table_new(const char *columns);

/* The next cell, row by row. NULL and "" are shown as "-". */
void table_add(struct table *table, const char *text);

/* Prints and frees it. */
void table_print(struct table *table, FILE *out);

#endif
