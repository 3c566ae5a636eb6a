//! The header, given to a C and a C++ compiler together with a program that uses it.

use std::path::Path;
use std::process::Command;

use super::{HeaderWeights, header};
use crate::ctx::{C_FIELDS, CTX_BYTES};
use crate::{Alias, DType, Dim, HostOp, Input, Meta, Output};

fn sample() -> Meta {
    Meta {
        name: "a */ nasty \"name\" \\".into(),
        target: "x86_64-unknown-linux-gnu".into(),
        features: vec!["avx2".into()],
        compiler: "brolga 0.1.0".into(),
        symbols: vec!["batch".into(), "sequence ??/ \\".into()],
        inputs: vec![
            Input {
                name: "x\n\"*/".into(),
                dtype: DType::F32,
                dims: vec![Dim::Symbol(0), Dim::Const(3)],
                default: None,
            },
            Input {
                name: "größe".into(),
                dtype: DType::Bf16,
                dims: vec![],
                default: Some(8),
            },
        ],
        outputs: vec![Output {
            name: "y/*".into(),
            dtype: DType::F32,
            rank: 2,
            dynamic: false,
            shape: "[batch, 3]".into(),
        }],
        guards: vec!["batch % 2 == 0".into()],
        sizes: vec!["output `y/*`, f32[batch, 3],".into()],
        checks: vec![],
        names: vec![],
        host_ops: vec![HostOp {
            text: "unique */".into(),
            node: "n".into(),
            inputs: 1,
            outputs: 1,
        }],
        aliases: vec![Alias { input: 0, output: 0 }],
        weights_bytes: 12,
        nodes: vec!["n".into(), "Gather \"b\"".into()],
        ..Meta::default()
    }
}

/// Adds one to every element of `[batch, 3]`, as compiled code would: through the context, in parallel when it can.
const PROGRAM: &str = r#"
#include <stdlib.h>
#include <string.h>

struct arg { const float *x; float *y; const float *w; };

static void BROLGA_CALL body(void *p, int64_t begin, int64_t end, uint32_t worker) {
  struct arg *a = (struct arg *)p;
  (void)worker;
  for (int64_t i = 3 * begin; i < 3 * end; i++) a->y[i] = a->x[i] + a->w[i % 3];
}

int32_t BROLGA_CALL net_plan(const int64_t *dims, uint32_t workers, uint64_t *arena_bytes) {
  if (dims[0] % 2 != 0) return BROLGA_ERROR_GUARD;
  *arena_bytes = 64 * (uint64_t)workers;
  return BROLGA_OK;
}

int32_t BROLGA_CALL net_shapes(const int64_t *dims, int64_t *out) {
  out[0] = dims[0];
  out[1] = NET_INPUT_0_DIM_1;
  return BROLGA_OK;
}

int32_t BROLGA_CALL net_run(brolga_ctx *ctx, const void *const *inputs, void **outputs) {
  struct arg a;
  if (ctx->abi_version != BROLGA_ABI_VERSION) return BROLGA_ERROR_ABI_VERSION;
  a.x = (const float *)inputs[0];
  a.y = (float *)outputs[0];
  a.w = (const float *)ctx->weights;
  memset(ctx->arena, 0, (size_t)ctx->arena_bytes);
  if (ctx->parallel_for != NULL) return ctx->parallel_for(ctx, body, &a, ctx->dims[0]);
  body(&a, 0, ctx->dims[0], 0);
  return BROLGA_OK;
}
"#;

/// Returns 0 when everything is as the ABI says; another number names the check that failed.
const MAIN: &str = r#"
int main(void) {
  static const float w[3] = { 10, 20, 30 };
  float x[] = { 1, 2, 3 };
  float y[3] = { 0, 0, 0 };
  const void *inputs[] = { x, x };
  void *outputs[] = { y };
  int64_t dims[2] = { 1, 1 };
  int64_t shape[NET_OUTPUT_DIMS];
  uint64_t arena_bytes = 0;
  brolga_ctx ctx;
  if (example(inputs, outputs, w) != BROLGA_ERROR_GUARD) return 1;
  if (strcmp(brolga_error_string(BROLGA_OK), "success") != 0) return 2;
  if (strcmp(brolga_error_string(BROLGA_ERROR_GUARD | 3 << 8), brolga_error_string(BROLGA_ERROR_GUARD)) != 0) return 3;
  if (strcmp(brolga_error_string(255), "unknown error") != 0) return 4;
  dims[0] = 0;
  if (net_plan(dims, 2, &arena_bytes) != BROLGA_OK || arena_bytes != 128) return 5;
  dims[0] = 1;
  if (net_shapes(dims, shape) != BROLGA_OK || shape[0] != 1 || shape[1] != 3) return 6;
  void *memory = malloc(128 + 63);
  net_ctx_init(&ctx, w, dims, brolga_align(memory), 128);
  if ((uintptr_t)ctx.arena % 64 != 0) return 7;
  if (net_run(&ctx, inputs, outputs) != BROLGA_OK) return 8;
  if (y[0] != 11 || y[1] != 22 || y[2] != 33) return 9;
  if (NET_INPUT_1_DEFAULT(&ctx) != w + 2) return 10;
  free(memory);
  if (strcmp(net_node_name(1), "Gather \"b\"") != 0 || net_node_name(2) != NULL) return 10;
  return 0;
}
"#;

/// The usage example, out of its comment.
fn example(header: &str) -> String {
    let lines = header.lines().skip_while(|line| *line != " * Example:").skip(1);
    let lines = lines.take_while(|line| !line.starts_with(" * where"));
    lines
        .map(|line| line.trim_start_matches(" *"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Compiles with warnings as errors; the compiler's words are in the panic.
fn compile(compiler: &str, arguments: &[&str], source: &Path) {
    let result = Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Werror"])
        .args(arguments)
        .arg(source)
        .output()
        .unwrap_or_else(|error| panic!("`{compiler}` is needed for this test: {error}"));
    assert!(
        result.status.success(),
        "{compiler} {arguments:?}:\n{}",
        String::from_utf8_lossy(&result.stderr)
    );
}

/// A model whose output has as many rows as its input's first number says.
const DYNAMIC: &str = r#"
#include <stdlib.h>

int32_t BROLGA_CALL net_plan(const int64_t *dims, uint32_t workers, uint64_t *arena_bytes) {
  (void)dims;
  *arena_bytes = 64 * (uint64_t)workers;
  return BROLGA_OK;
}

int32_t BROLGA_CALL net_run(brolga_ctx *ctx, const void *const *inputs, void **outputs) {
  int64_t rows = (int64_t)*(const float *)inputs[0];
  uint64_t bytes = 12 * (uint64_t)rows;
  if (outputs[0] == NULL && ctx->alloc != NULL) outputs[0] = ctx->alloc(ctx, bytes, 64);
  else if (ctx->out_bytes == NULL || ctx->out_bytes[0] < bytes) {
    ctx->error_value = (int64_t)bytes;
    return BROLGA_ERROR_OUTPUT_TOO_SMALL;
  }
  for (int64_t i = 0; i < 3 * rows; i++) ((float *)outputs[0])[i] = (float)i;
  if (ctx->out_dims != NULL) {
    ctx->out_dims[0] = rows;
    ctx->out_dims[1] = 3;
  }
  return BROLGA_OK;
}
"#;

const DYNAMIC_MAIN: &str = r#"
int main(void) {
  float rows = 2;
  float y[9];
  const void *inputs[] = { &rows, &rows };
  void *outputs[] = { y };
  uint64_t out_bytes[] = { sizeof y };
  int64_t out_dims[NET_OUTPUT_DIMS] = { 0 };
  if (NET_OUTPUT_0_DYNAMIC != 1) return 1;
  if (example(inputs, outputs, NULL, out_bytes, out_dims) != BROLGA_OK) return 2;
  if (out_dims[0] != 2 || out_dims[1] != 3 || y[5] != 5) return 3;
  rows = 4;
  if (example(inputs, outputs, NULL, out_bytes, out_dims) != BROLGA_ERROR_OUTPUT_TOO_SMALL) return 4;
  return 0;
}
"#;

#[test]
fn the_example_gives_memory_for_outputs_that_only_the_run_measures() {
    let folder = tempfile::tempdir().unwrap();
    let mut meta = sample();
    meta.outputs[0].dynamic = true;
    let text = header("net", &meta, HeaderWeights::File);
    std::fs::write(folder.path().join("net.h"), &text).unwrap();
    let source = format!("#include \"net.h\"\n{DYNAMIC}{}\n{DYNAMIC_MAIN}", example(&text));
    let (path, program) = (folder.path().join("main.c"), folder.path().join("main"));
    std::fs::write(&path, source).unwrap();
    let arguments = ["-std=c99", "-pedantic", "-o", program.to_str().unwrap()];
    compile("cc", &arguments, &path);
    let status = Command::new(&program).status().unwrap();
    assert_eq!(status.code(), Some(0), "the number of the check that failed");
}

#[test]
fn a_c_program_compiles_against_the_header_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let text = header("net", &sample(), HeaderWeights::File);
    std::fs::write(folder.join("net.h"), &text).unwrap();
    // A second model in the same translation unit shares the first part.
    std::fs::write(
        folder.join("other.h"),
        header("other", &sample(), HeaderWeights::Embedded),
    )
    .unwrap();

    let mut checks = format!("typedef char size_check[sizeof(brolga_ctx) == {CTX_BYTES} ? 1 : -1];\n");
    for (declaration, offset, _) in C_FIELDS {
        let field = declaration.rsplit([' ', '*']).next().unwrap();
        checks += &format!("typedef char {field}_check[offsetof(brolga_ctx, {field}) == {offset} ? 1 : -1];\n");
    }
    let includes = "#include \"net.h\"\n#include \"other.h\"\n#include \"net.h\"\n";
    let source = format!("{includes}{checks}{PROGRAM}{}\n{MAIN}", example(&text));
    let path = folder.join("main.c");
    std::fs::write(&path, source).unwrap();

    let program = folder.join("main");
    let output = ["-o", program.to_str().unwrap()];
    for standard in ["-std=c99", "-std=c11"] {
        compile(
            "cc",
            &[&[standard, "-pedantic", "-O1"], output.as_slice()].concat(),
            &path,
        );
        let status = Command::new(&program).status().unwrap();
        assert_eq!(
            status.code(),
            Some(0),
            "{standard}: the number of the check in MAIN that failed"
        );
    }
    // A machine may have a C compiler alone; continuous integration may not.
    let has_cpp = Command::new("c++").arg("--version").output().is_ok();
    assert!(has_cpp || std::env::var_os("CI").is_none(), "`c++` is missing");
    if has_cpp {
        let cpp = folder.join("main.cpp");
        std::fs::write(
            &cpp,
            format!("{includes}int main() {{ return NET_INPUT_COUNT - 2; }}\n"),
        )
        .unwrap();
        compile("c++", &["-std=c++11", "-pedantic", "-fsyntax-only"], &cpp);
    }
}

#[test]
fn the_description_has_names_types_and_extents() {
    let text = header("net", &sample(), HeaderWeights::Embedded);
    for line in [
        "#define NET_INPUT_COUNT 2",
        "#define NET_INPUT_0_DTYPE BROLGA_F32",
        "#define NET_INPUT_0_DIM_0_SYMBOL 0",
        "#define NET_INPUT_0_DIM_1 3",
        "#define NET_INPUT_0_NAME \"x\\012\\042*/\"",
        "#define NET_INPUT_1_RANK 0",
        "#define NET_INPUT_1_DEFAULT(ctx) ((const void *)((ctx)->weights + UINT64_C(8)))",
        "#define NET_OUTPUT_DIMS 2",
        "#define NET_SYMBOL_0_NAME \"batch\"",
        "#define NET_WEIGHTS_BYTES UINT64_C(12)",
        "#define NET_HOST_COUNT 1",
        "extern const uint8_t net_weights[];",
        "/* Output 0: y/ * f32 [batch, 3] */",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "`{line}` is missing in\n{text}"
        );
    }
}
