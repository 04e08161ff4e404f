// Counts the instructions a program executes under qemu's user-mode emulation, and tells at its end.
// The functions are those of qemu's plugin interface, version 1 (docs/devel/tcg-plugins of qemu 7.2).
//   cc -shared -fPIC -O2 -o instructions.so instructions.c
//   qemu-aarch64 -plugin ./instructions.so -d plugin PROGRAM
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

typedef uint64_t Id;
typedef struct Block Block;
enum Operation { ADD_U64 = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(Id id, void (*translated)(Id id, Block *block));
void qemu_plugin_register_vcpu_tb_exec_inline(Block *block, enum Operation operation, void *place, uint64_t value);
void qemu_plugin_register_atexit_cb(Id id, void (*ended)(Id id, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const Block *block);
void qemu_plugin_outs(const char *text);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t n_executed;

// A block adds its length each time it runs.
static void on_translated(Id id, Block *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &n_executed, qemu_plugin_tb_n_insns(block));
}

static void on_end(Id id, void *data) {
    (void)id;
    (void)data;
    char line[48];
    snprintf(line, sizeof line, "executed %" PRIu64 " instructions\n", n_executed);
    qemu_plugin_outs(line);
}

__attribute__((visibility("default"))) int qemu_plugin_install(Id id, const void *machine, int n_arguments, char **arguments) {
    (void)machine;
    (void)n_arguments;
    (void)arguments;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
    qemu_plugin_register_atexit_cb(id, on_end, NULL);
    return 0;
}
