# SPDX-License-Identifier: BSD-2-Clause
# Completion of shuntctl for bash. Names and ids come from the daemon, if it answers.
# shellcheck disable=SC2016 # $1 is for awk

# One to a line: tests/unit/test_ctl.c compares them with the command table.
_shuntctl_commands='
	info
	listeners
	backends
	sessions
	top
	server
	close
	reload
	upgrade
	drain
	not-ready
	ready
	log-level
'

# The columns of a table: awk's print expression is $1.
_shuntctl_ask() {
	local table=$1 columns=$2
	command shuntctl "${_shuntctl_socket[@]}" "$table" 2>/dev/null | awk "NR > 1 { print $columns }"
}

# The words before the cursor, as the shell's user sees them: bash itself would split them at each ':', which
# the names of servers have. Then the command and the number of words behind it, without the options.
_shuntctl_parse() {
	local i word
	read -ra _shuntctl_line <<<"${COMP_LINE:0:COMP_POINT}"
	[[ ${COMP_LINE:0:COMP_POINT} != *[[:space:]] ]] || _shuntctl_line+=('')
	for ((i = 1; i < ${#_shuntctl_line[@]} - 1; i++)); do
		word=${_shuntctl_line[i]}
		case $word in
		-s | --socket)
			_shuntctl_socket=(--socket "${_shuntctl_line[++i]}")
			;;
		--listener | --backend | --server | --client | --path | --limit)
			((++i))
			;;
		-*) ;;
		*)
			if [[ -z $_shuntctl_command ]]; then
				_shuntctl_command=$word
			else
				((_shuntctl_nargs += 1))
			fi
			;;
		esac
	done
}

_shuntctl_words() {
	local options='--socket --json --help --version'
	case $_shuntctl_command in
	'') echo "$_shuntctl_commands $options" ;;
	sessions) echo '--listener --backend --server --client --path --limit --json' ;;
	server)
		case $_shuntctl_nargs in
		0) _shuntctl_ask backends '$1 "/" $2' ;;
		1) echo 'ready drain maint weight' ;;
		2) echo 'default' ;;
		esac
		;;
	close) [[ $_shuntctl_nargs -gt 0 ]] || _shuntctl_ask sessions '$1' ;;
	log-level) [[ $_shuntctl_nargs -gt 0 ]] || echo 'error warning notice info debug' ;;
	esac
}

_shuntctl() {
	local current words word
	local _shuntctl_line=() _shuntctl_socket=() _shuntctl_command='' _shuntctl_nargs=0
	_shuntctl_parse
	current=${_shuntctl_line[-1]}
	COMPREPLY=()
	case ${_shuntctl_line[-2]} in
	-s | --socket) words=$(compgen -f -- "$current") ;;
	--listener) words=$(_shuntctl_ask listeners '$1') ;;
	--backend) words=$(_shuntctl_ask backends '$1') ;;
	--server) words=$(_shuntctl_ask backends '$1 "/" $2') ;;
	--path) words='relay sockmap shortcut' ;;
	--client | --limit) words='' ;;
	*) words=$(_shuntctl_words) ;;
	esac
	# Not compgen -W, which would expand what a name contains. The shell replaces only what follows the last ':'.
	while read -r word; do
		[[ -n $word && $word == "$current"* ]] || continue
		[[ $COMP_WORDBREAKS == *:* && $current == *:* ]] && word=${word#"${current%:*}:"}
		COMPREPLY+=("$word")
	done < <(tr -s ' \t' '\n' <<<"$words")
}

complete -F _shuntctl shuntctl
