/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl.h"

#include <locale.h>

int main(int argc, char **argv)
{
	enum ctl_exit status;

	setlocale(LC_CTYPE, "");
	status = ctl_run(argc, argv, stdout, stderr);
	/* A full disk or a closed pipe must not look like success. */
	if (fflush(stdout) && status == CTL_OK)
		status = CTL_FAILED;
	return (int)status;
}
