/* Arm MPS2 with the AN386 image (Cortex-M4F): vectors, start-up code, UART0, exit through semihosting. */
#include "board.h"

#include <stdint.h>

extern uint32_t stack_top, data_start, data_end, data_load, bss_start, bss_end;

struct uart {
    volatile uint32_t data, state, control, interrupt, divider;
};

static struct uart *const uart0 = (struct uart *)0x40004000;
static volatile uint32_t *const coprocessor_access = (volatile uint32_t *)0xE000ED88;

static void reset(void)
{
    *coprocessor_access |= 0xFu << 20; /* floating point unit on */
    __asm volatile("dsb\n isb" ::: "memory");
    const uint32_t *from = &data_load;
    for (uint32_t *to = &data_start; to < &data_end; to++) {
        *to = *from++;
    }
    for (uint32_t *to = &bss_start; to < &bss_end; to++) {
        *to = 0;
    }
    uart0->divider = 16;
    uart0->control = 1; /* transmit */
    board_exit(main());
}

static void fault(void)
{
    board_print("fault\n");
    board_exit(99);
}

extern const struct vectors {
    void *stack;
    void (*handlers[15])(void);
} vectors;

__attribute__((section(".vectors"), used)) const struct vectors vectors = {
    &stack_top,
    {reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, fault},
};

void board_print(const char *text)
{
    while (*text != '\0') {
        while ((uart0->state & 1u) != 0) { /* transmit buffer full */
        }
        uart0->data = (uint8_t)*text++;
    }
}

void board_print_number(int value)
{
    char digits[12];
    char *text = &digits[11];
    unsigned rest = value < 0 ? 0u - (unsigned)value : (unsigned)value;
    *text = '\0';
    do {
        *--text = (char)('0' + rest % 10u);
        rest /= 10u;
    } while (rest != 0);
    if (value < 0) {
        *--text = '-';
    }
    board_print(text);
}

void board_exit(int status)
{
    const uint32_t reason[2] = {0x20026, (uint32_t)status}; /* ADP_Stopped_ApplicationExit */
    register uint32_t operation __asm("r0") = 0x20;         /* SYS_EXIT_EXTENDED */
    register const uint32_t *argument __asm("r1") = reason;
    __asm volatile("bkpt 0xAB" : : "r"(operation), "r"(argument) : "memory");
    for (;;) {
    }
}
