#!/bin/bash
# No function above 70 lines, no file above 600 (tables in .def are free). --list prints the largest ones.
source "$(dirname "$0")/lib.sh"
max_function=70
max_file=600

files=$(sources '*.c' '*.h' '*.inc')
functions() {
    ctags -f - -L - --languages=C --langmap=C:+.inc.h --kinds-C=f --fields=ne --excmd=number <<<"$files" 2>/dev/null |
        sed -nE 's/^([^\t]+)\t([^\t]+)\t.*\tline:([0-9]+).*\tend:([0-9]+).*/\2 \3 \1 \4/p' |
        while read -r file line name end; do echo "$((end - line + 1)) $file:$line $name"; done
}

if [ "$1" = --list ]; then
    echo "$files" | xargs wc -l | grep -v ' total$' | sort -rn | head -20
    functions | sort -rn | head -20
    exit 0
fi
while read -r lines file; do
    [ "$lines" -gt $max_file ] && finding "$file: $lines lines (at most $max_file)"
done < <(echo "$files" | xargs wc -l | grep -v ' total$')
while read -r lines where name; do
    [ "$lines" -gt $max_function ] && finding "$where: function $name has $lines lines (at most $max_function)"
done < <(functions)
done_checking size
