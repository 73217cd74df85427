/* Classifies the digits that `inlay export` embedded in digits_vectors.h and compares every output
 * with what the desktop computed. Exit status: number of differences, or 100 and more for the self-test. */
#include "board.h"
#include "digits.h"
#include "digits_vectors.h"

#include <string.h>

static _Alignas(DIGITS_ARENA_ALIGN) unsigned char arena[DIGITS_ARENA_BYTES];

static int largest(const float *values)
{
    int best = 0;
    for (int i = 1; i < (int)DIGITS_OUTPUT0_ELEMENTS; i++) {
        best = values[i] > values[best] ? i : best;
    }
    return best;
}

static int classify(int vector)
{
    memcpy(digits_input0(arena), digits_vectors_input0[vector], DIGITS_INPUT0_BYTES);
    digits_run(arena);
    const float *found = digits_output0(arena);
    const float *expected = digits_vectors_output0[vector];
    const int same = memcmp(found, expected, DIGITS_OUTPUT0_BYTES) == 0;
    board_print("digit ");
    board_print_number(vector);
    board_print(": expected ");
    board_print_number(largest(expected));
    board_print(", found ");
    board_print_number(largest(found));
    board_print(same ? ", same bits\n" : ", DIFFERENT FROM THE DESKTOP\n");
    return same ? 0 : 1;
}

int main(void)
{
    int differences = 0;
    if (digits_init(arena, sizeof arena) != DIGITS_OK) {
        board_print("arena refused\n");
        return 200;
    }
    for (int vector = 0; vector < (int)DIGITS_VECTORS; vector++) {
        differences += classify(vector);
    }
    const int selftest = digits_selftest(arena);
    board_print(selftest == DIGITS_OK ? "self-test passed\n" : "self-test FAILED\n");
    return selftest == DIGITS_OK ? differences : 100 + selftest;
}
