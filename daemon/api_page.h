/* SPDX-License-Identifier: BSD-2-Clause */
/* The status page: one HTML document without scripts or outside resources. Pure over its argument.
 */
#ifndef SHUNT_API_PAGE_H
#define SHUNT_API_PAGE_H

#include "api.h"

struct api_page {
	const struct api_source *source;
	const struct conf *conf;
	const struct api_info *info;
	const struct api_session *sessions; /* busiest first */
	size_t nsessions;
	bool ready;
	char ready_why[256];
};

/* 0 with a malloc()ed document, or a negative errno. */
MUST_CHECK int api_page_render(const struct api_page *page, char **ret_body, size_t *ret_len);

#endif
