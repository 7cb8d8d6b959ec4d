/* Stands in for libFuzzer: every file of the folders named, whole, cut and with flipped bits (the same ones in every
 * run). */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "fuzz/fuzz.h"

#define MAX_SIZE (1 << 16)
#define DAMAGED  60 /* copies of each file */

static uint64_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void damage(const uint8_t *data, size_t size)
{
    static uint8_t copy[MAX_SIZE];
    uint64_t state = size;
    for (int i = 0; i < DAMAGED && size; i++) {
        memcpy(copy, data, size);
        for (int k = 0; k <= i % 4; k++)
            copy[next(&state) % size] ^= (uint8_t)(1u << next(&state) % 8);
        LLVMFuzzerTestOneInput(copy, i % 3 ? size : (size_t)(next(&state) % size));
    }
}

static int replay_folder(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return 0;
    static uint8_t data[MAX_SIZE];
    int n = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char name[1024];
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(name, "rb");
        if (!f)
            continue; /* an entry that cannot be opened is none */
        const size_t size = fread(data, 1, sizeof data, f);
        fclose(f);
        LLVMFuzzerTestOneInput(data, size);
        damage(data, size);
        n++;
    }
    closedir(d);
    return n;
}

int main(int argc, char **argv)
{
    int n = 0;
    for (int i = 1; i < argc; i++)
        n += replay_folder(argv[i]);
    printf("%d files replayed\n", n);
    return n ? 0 : 1;
}
