/* SPDX-License-Identifier: BSD-2-Clause */
#include "table.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "../daemon/util.h"
#include "format.h"

#define COLUMNS_MAX 16

struct table {
	unsigned int ncolumns;
	char align[COLUMNS_MAX]; /* '<' or '>' */
	size_t width[COLUMNS_MAX];
	char **cells; /* row by row, the head first */
	size_t ncells, size;
};

/* Characters, as far as UTF-8 goes. */
static size_t width_of(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

void table_add(struct table *table, const char *text)
{
	char *copy = table ? strdup(text && *text ? text : "-") : NULL;
	size_t *width;

	if (!copy)
		return;
	if (table->ncells == table->size) {
		size_t size = table->size ? 2 * table->size : 64;
		char **cells = realloc(table->cells, size * sizeof(*cells));

		if (!cells) {
			free(copy);
			return;
		}
		table->cells = cells;
		table->size = size;
	}
	format_safe(copy);
	width = &table->width[table->ncells % table->ncolumns];
	*width = MAX(*width, width_of(copy));
	table->cells[table->ncells++] = copy;
}

struct table *table_new(const char *columns)
{
	struct table *table = calloc(1, sizeof(*table));
	char *copy = strdup(columns), *rest = copy, *word;

	if (!table || !copy) {
		free(table);
		free(copy);
		return NULL;
	}
	for (const char *c = columns; *c; c++)
		table->ncolumns += *c == '|';
	table->ncolumns = MIN(table->ncolumns + 1, (unsigned int)COLUMNS_MAX);
	for (unsigned int i = 0; i < table->ncolumns && (word = strsep(&rest, "|")); i++) {
		table->align[i] = *word == '>' ? '>' : '<';
		table_add(table, word + (*word == '>'));
	}
	free(copy);
	return table;
}

void table_print(struct table *table, FILE *out)
{
	for (size_t i = 0; table && i < table->ncells; i++) {
		unsigned int column = (unsigned int)(i % table->ncolumns);
		size_t padding = table->width[column] - width_of(table->cells[i]);
		bool last = column + 1 == table->ncolumns;

		/* No blanks at the end of a line. */
		if (table->align[column] == '>')
			fprintf(out, "%*s%s%s", (int)padding, "", table->cells[i],
				last ? "\n" : "  ");
		else
			fprintf(out, "%s%*s%s", table->cells[i], last ? 0 : (int)padding, "",
				last ? "\n" : "  ");
		free(table->cells[i]);
	}
	if (table)
		free(table->cells);
	free(table);
}
