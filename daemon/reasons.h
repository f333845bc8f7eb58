/* SPDX-License-Identifier: BSD-2-Clause */
/* The closed lists of reasons, each made from its .def table. */
#ifndef SHUNT_REASONS_H
#define SHUNT_REASONS_H

enum end_reason {
#define END_REASON(id, name, text) END_##id,
#include "end_reasons.def"
#undef END_REASON
	END_REASON_COUNT
};

enum fallback_reason {
#define FALLBACK_REASON(id, name, text) FALLBACK_##id,
#include "fallback_reasons.def"
#undef FALLBACK_REASON
	FALLBACK_REASON_COUNT
};

enum reject_reason {
#define REJECT_REASON(id, name, text) REJECT_##id,
#include "reject_reasons.def"
#undef REJECT_REASON
	REJECT_REASON_COUNT
};

/* The label values used in metrics and logs. */
extern const char *const end_reason_names[END_REASON_COUNT];
extern const char *const fallback_reason_names[FALLBACK_REASON_COUNT];
extern const char *const reject_reason_names[REJECT_REASON_COUNT];

#endif
