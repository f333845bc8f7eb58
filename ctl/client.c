/* SPDX-License-Identifier: BSD-2-Clause */
/* Owns the connection to the daemon; the only file with libcurl. Must not know what is asked. */
#include "client.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"

#define CONNECT_TIMEOUT_MS 5000L
#define TIMEOUT_MS 60000L /* a reload answers when it is done */
#define ANSWER_MAX ((size_t)256 << 20)

struct answer {
	char *text; /* terminated */
	size_t len;
};

static size_t answer_cb(char *part, size_t size, size_t n, void *arg)
{
	struct answer *answer = arg;
	size_t len = size * n;
	char *text;

	if (len > ANSWER_MAX - answer->len)
		return 0;
	text = realloc(answer->text, answer->len + len + 1);
	if (!text)
		return 0;
	memcpy(text + answer->len, part, len);
	answer->text = text;
	answer->len += len;
	text[answer->len] = '\0';
	return len;
}

bool client_encode(char *to, size_t size, const char *text, bool keep_slash)
{
	size_t used = strlen(to);

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		bool plain =
			(c < 0x80 && isalnum(c)) || strchr("-._~:", c) || (keep_slash && c == '/');

		if (used + 4 > size)
			return false;
		used += (size_t)sprintf(to + used, plain ? "%c" : "%%%02X", c);
	}
	return true;
}

static void set_options(CURL *curl, const struct ctl *ctl, const char *method, const char *url,
	struct answer *answer)
{
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, ctl->socket);
	curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* whatever the environment says */
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L); /* a server may be called ".." */
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, TIMEOUT_MS);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, answer_cb);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
}

static enum ctl_exit transfer_failed(const struct ctl *ctl, CURL *curl, CURLcode code)
{
	long os_error = 0;

	curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &os_error);
	if (code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST) {
		fprintf(ctl->err, "shuntctl: cannot connect to %s: %s\n", ctl->socket,
			os_error ? strerror((int)os_error) : curl_easy_strerror(code));
		return CTL_UNREACHABLE;
	}
	fprintf(ctl->err, "shuntctl: %s: %s\n", ctl->socket, curl_easy_strerror(code));
	return CTL_FAILED;
}

/* {"error": text}, or the one line of an answer that came from below the API. */
static enum ctl_exit refused(const struct ctl *ctl, long status, const struct answer *answer)
{
	json_t *object = json_loads(answer->text ? answer->text : "", 0, NULL);
	const char *text = json_string_value(json_object_get(object, "error"));
	char line[512];

	if (!text)
		text = answer->text && *answer->text ? answer->text : "no reason was given";
	snprintf(line, sizeof(line), "%.*s", (int)strcspn(text, "\n"), text);
	format_safe(line);
	fprintf(ctl->err, "shuntctl: %s (status %ld)\n", line, status);
	json_decref(object);
	return CTL_FAILED;
}

static enum ctl_exit read_answer(
	const struct ctl *ctl, long status, const struct answer *answer, json_t **ret)
{
	json_error_t error;

	if (status != 200)
		return refused(ctl, status, answer);
	if (ctl->json) {
		fprintf(ctl->out, "%s\n", answer->text ? answer->text : "");
		return CTL_OK;
	}
	*ret = json_loads(answer->text ? answer->text : "", JSON_REJECT_DUPLICATES, &error);
	if (*ret)
		return CTL_OK;
	fprintf(ctl->err, "shuntctl: the answer is not JSON: %s\n", error.text);
	return CTL_FAILED;
}

enum ctl_exit client_call(
	const struct ctl *ctl, const char *method, const char *path, json_t *body, json_t **ret)
{
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	CURL *curl = curl_easy_init();
	struct answer answer = {0};
	enum ctl_exit result;
	char url[1024];
	long status = 0;
	CURLcode code;

	*ret = NULL;
	snprintf(url, sizeof(url), "http://shunt%s", path);
	if (curl) {
		set_options(curl, ctl, method, url, &answer);
		if (text)
			curl_easy_setopt(curl, CURLOPT_POSTFIELDS, text);
		else if (!strcmp(method, "POST"))
			curl_easy_setopt(curl, CURLOPT_POSTFIELDS, "");
	}
	code = curl ? curl_easy_perform(curl) : CURLE_OUT_OF_MEMORY;
	if (code == CURLE_OK) {
		curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
		result = read_answer(ctl, status, &answer, ret);
	} else {
		result = transfer_failed(ctl, curl, code);
	}
	curl_easy_cleanup(curl);
	free(answer.text);
	free(text);
	return result;
}
