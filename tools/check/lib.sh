# Sourced by the checks: run in the project's root, list files, count findings.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
folders="base kernels ir frontend passes quant targets plan backend runtime compiler"
findings=0

finding() { # finding TEXT
    echo "$1"
    findings=$((findings + 1))
}

# Source files of the project: those git knows, and new ones that are not ignored.
sources() { # sources PATTERN...
    git ls-files --cached --others --exclude-standard -- "$@" | while read -r f; do [ -f "$f" ] && echo "$f"; done | sort -u
}

done_checking() { # done_checking NAME
    if [ "$findings" -gt 0 ]; then
        echo "$1: $findings finding(s)"
        exit 1
    fi
    exit 0
}
