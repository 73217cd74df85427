/* A QEMU plugin that counts executed instructions per address, apart for every stretch between two marks.
 *
 * Arguments: out=FILE, mark=ADDRESS (a function; each call of it ends a stretch). FILE gets a line "#" per mark and,
 * before it, one line "address executed taken" per address: `taken` is how often execution went elsewhere than to the
 * next address. Needs no header of QEMU's: the few declarations it takes are below (plugin API 1 and 2).
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef API
#define API 1
#endif
#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
typedef void (*block_hook)(plugin_id, void *translation);
typedef void (*run_hook)(unsigned int core, void *block);

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, block_hook hook);
extern void qemu_plugin_register_vcpu_tb_exec_cb(void *translation, run_hook hook, int flags, void *block);
extern void qemu_plugin_register_atexit_cb(plugin_id id, void (*hook)(plugin_id, void *), void *data);
extern size_t qemu_plugin_tb_n_insns(const void *translation);
extern void *qemu_plugin_tb_get_insn(const void *translation, size_t index);
extern uint64_t qemu_plugin_insn_vaddr(const void *instruction);
extern size_t qemu_plugin_insn_size(const void *instruction);

EXPORT int qemu_plugin_version = API;

struct block {
    struct block *older;
    uint64_t executed, taken, end;
    size_t length;
    uint64_t addresses[];
};

static struct block *newest, *last;
static uint64_t mark_address = UINT64_MAX;
static FILE *out;

static void end_stretch(void)
{
    for (struct block *block = newest; block != NULL; block = block->older) {
        for (size_t i = 0; block->executed != 0 && i < block->length; i++) {
            const uint64_t taken = i + 1 == block->length ? block->taken : 0;
            fprintf(out, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", block->addresses[i], block->executed, taken);
        }
        block->executed = block->taken = 0;
    }
    fputs("#\n", out);
}

static void executed(unsigned int core, void *data)
{
    struct block *const block = data;
    (void)core;
    if (last != NULL && last->end != block->addresses[0]) {
        last->taken++;
    }
    last = block;
    if (block->addresses[0] == mark_address) {
        end_stretch();
    }
    block->executed++;
}

static void translated(plugin_id id, void *translation)
{
    const size_t length = qemu_plugin_tb_n_insns(translation);
    struct block *const block = calloc(1, sizeof *block + length * sizeof block->addresses[0]);
    (void)id;
    if (block == NULL || length == 0) {
        abort();
    }
    for (size_t i = 0; i < length; i++) {
        const void *const instruction = qemu_plugin_tb_get_insn(translation, i);
        block->addresses[i] = qemu_plugin_insn_vaddr(instruction);
        block->end = block->addresses[i] + qemu_plugin_insn_size(instruction);
    }
    block->length = length;
    block->older = newest;
    newest = block;
    qemu_plugin_register_vcpu_tb_exec_cb(translation, executed, 0, block);
}

static void finished(plugin_id id, void *data)
{
    (void)id;
    (void)data;
    fclose(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            out = fopen(argv[i] + 4, "w");
        } else if (strncmp(argv[i], "mark=", 5) == 0) {
            mark_address = strtoull(argv[i] + 5, NULL, 0);
        }
    }
    if (out == NULL) {
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
