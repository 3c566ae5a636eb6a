/*
 * Runs one compiled model once:   program WEIGHTS|- FOLDER DIM...
 *
 * Reads FOLDER/input_I (an input without a file is left to its default), writes FOLDER/output_I (raw elements), prints the extents of each output on a line of its own.
 * An output that may be the memory of an input is computed there as well, and must be the same.
 * describe.h includes the model's header and gives its macros names that do not depend on the model.
 */
#include "describe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 };

static void fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static size_t bytes_of(int dtype) {
  switch (dtype) {
    case BROLGA_F64: case BROLGA_I64: case BROLGA_U64: return 8;
    case BROLGA_F32: case BROLGA_I32: case BROLGA_U32: return 4;
    case BROLGA_F16: case BROLGA_BF16: case BROLGA_I16: case BROLGA_U16: return 2;
    default: return 1;
  }
}

/* Zeroed memory at a multiple of 64; at least one byte. */
static void *memory(size_t bytes) {
  void *raw = calloc(bytes + 64, 1);
  if (raw == NULL) fail("memory", "there is not enough");
  return brolga_align(raw);
}

static int exists(const char *path) {
  FILE *f = fopen(path, "rb");
  if (f != NULL) fclose(f);
  return f != NULL;
}

static void *read_file(const char *path) {
  FILE *f = fopen(path, "rb");
  long bytes;
  void *out;
  if (f == NULL || fseek(f, 0, SEEK_END) != 0 || (bytes = ftell(f)) < 0) fail(path, "cannot be read");
  rewind(f);
  out = memory((size_t)bytes);
  if (fread(out, 1, (size_t)bytes, f) != (size_t)bytes) fail(path, "cannot be read");
  fclose(f);
  return out;
}

static void *BROLGA_CALL allocate(brolga_ctx *ctx, uint64_t bytes, uint64_t align) {
  (void)ctx;
  return align <= 64 ? memory((size_t)bytes) : NULL;
}

int main(int argc, char **argv) {
  const void *inputs[MOST] = { NULL };
  void *outputs[MOST] = { NULL };
  size_t sizes[MOST] = { 0 };
  int64_t dims[MOST] = { 0 };
  int64_t extents[MOST * 8] = { 0 };
  const int64_t *extent = extents;
  const void *weights = NULL;
  uint64_t arena_bytes = 0;
  char path[4096];
  brolga_ctx ctx;
  int32_t status;
  int i, axis;

  if (argc != 3 + OF_MODEL(SYMBOL_COUNT)) fail("arguments", "expected WEIGHTS FOLDER DIM...");
  if (strcmp(argv[1], "-") != 0) weights = read_file(argv[1]);
  for (i = 0; i < OF_MODEL(SYMBOL_COUNT); i++) dims[i] = strtoll(argv[3 + i], NULL, 10);
  for (i = 0; i < OF_MODEL(INPUT_COUNT); i++) {
    snprintf(path, sizeof path, "%s/input_%d", argv[2], i);
    inputs[i] = exists(path) ? read_file(path) : NULL;
  }
  status = MODEL(plan)(dims, 1, &arena_bytes);
  if (status != BROLGA_OK) fail("plan", brolga_error_string(status));
  status = MODEL(shapes)(dims, extents);
  if (status != BROLGA_OK) fail("shapes", brolga_error_string(status));
  for (i = 0; i < OF_MODEL(OUTPUT_COUNT); i++) {
    sizes[i] = bytes_of(output_dtype[i]);
    for (axis = 0; axis < output_rank[i]; axis++, extent++) sizes[i] *= (size_t)*extent;
    /* What only the run tells the size of, the run allocates. */
    outputs[i] = output_dynamic[i] ? NULL : memory(sizes[i]);
  }
  MODEL(ctx_init)(&ctx, weights, dims, memory((size_t)arena_bytes), arena_bytes);
  ctx.alloc = allocate;
  ctx.out_dims = extents;
  for (i = 0; i < OF_MODEL(INPUT_COUNT); i++) {
    if (inputs[i] == NULL) inputs[i] = input_default(i, &ctx);
    if (inputs[i] == NULL) fail("arguments", "an input without a default has no file");
  }
  if (arena_bytes > 0) {
    /* An arena that is a byte short is refused, whatever the context says of an earlier run. */
    ctx.arena_bytes = arena_bytes - 1;
    ctx.error_code = BROLGA_ERROR_HOST_FAILED;
    ctx.error_node = 0;
    status = MODEL(run)(&ctx, inputs, outputs);
    if (status != BROLGA_ERROR_ARENA_TOO_SMALL) fail("run in a small arena", brolga_error_string(status));
    if (ctx.error_code != status || ctx.error_node != UINT32_MAX) fail("run in a small arena", "left another error");
    ctx.arena_bytes = arena_bytes;
  }
  status = MODEL(run)(&ctx, inputs, outputs);
  if (status != BROLGA_OK) {
    const char *node = MODEL(node_name)(ctx.error_node);
    if (ctx.error_code != status) fail("run", "the context has another error");
    fail(node != NULL ? node : "run", brolga_error_string(status));
  }
  if (ctx.error_code != BROLGA_OK) fail("run", "left an error");
  for (i = 0; i < OF_MODEL(OUTPUT_COUNT); i++) {
    /* An output in the memory of an input holds what it holds in memory of its own. */
    void *own = outputs[i];
    if (output_alias[i] < 0) continue;
    outputs[i] = (void *)(uintptr_t)inputs[output_alias[i]];
    status = MODEL(run)(&ctx, inputs, outputs);
    if (status != BROLGA_OK) fail("run in place", brolga_error_string(status));
    if (memcmp(own, outputs[i], sizes[i]) != 0) fail("run in place", "gave other elements");
  }
  extent = extents;
  for (i = 0; i < OF_MODEL(OUTPUT_COUNT); i++) {
    FILE *f;
    sizes[i] = bytes_of(output_dtype[i]);
    for (axis = 0; axis < output_rank[i]; axis++, extent++) {
      sizes[i] *= (size_t)*extent;
      printf("%lld ", (long long)*extent);
    }
    printf("\n");
    snprintf(path, sizeof path, "%s/output_%d", argv[2], i);
    f = fopen(path, "wb");
    if (f == NULL || fwrite(outputs[i], 1, sizes[i], f) != sizes[i] || fclose(f) != 0) fail(path, "cannot be written");
  }
  (void)input_dtype;
  (void)input_rank;
  return 0;
}
