/* SPDX-License-Identifier: BSD-2-Clause */
/* Names of the reasons. */
#include "reasons.h"

const char *const end_reason_names[END_REASON_COUNT] = {
#define END_REASON(id, name, text) [END_##id] = name,
#include "end_reasons.def"
#undef END_REASON
};

const char *const fallback_reason_names[FALLBACK_REASON_COUNT] = {
#define FALLBACK_REASON(id, name, text) [FALLBACK_##id] = name,
#include "fallback_reasons.def"
#undef FALLBACK_REASON
};

const char *const reject_reason_names[REJECT_REASON_COUNT] = {
#define REJECT_REASON(id, name, text) [REJECT_##id] = name,
#include "reject_reasons.def"
#undef REJECT_REASON
};
