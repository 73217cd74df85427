/* The little of a board that the demo needs: a console and an exit status. */
#ifndef BOARD_H
#define BOARD_H

void board_print(const char *text);
void board_print_number(int value);
void board_exit(int status);

int main(void);

#endif
