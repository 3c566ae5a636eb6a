//! The C header of a program compiled ahead of time: C99, C11 and C++.
//!
//! Invariants: the text depends on nothing but its arguments; the context's layout and the error codes come from the
//! same tables as the Rust types; whatever a model calls its tensors, the header compiles.

use std::fmt::Write as _;

use crate::ctx;
use crate::dtype::DType;
use crate::error::{DETAIL_SHIFT, ErrorCode};
use crate::meta::{Dim, Meta};

/// Where a program compiled ahead of time finds its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderWeights {
    /// In the object file, under the symbol `NAME_weights`.
    Embedded,
    /// In a file that the caller loads or maps.
    File,
}

/// The part of `name` that can begin a C symbol: ASCII letters, digits and underscores, not beginning with a digit.
///
/// ```
/// assert_eq!(brolga_abi::symbol_prefix("resnet-50 v1.onnx"), "resnet_50_v1_onnx");
/// assert_eq!(brolga_abi::symbol_prefix("3d"), "m3d");
/// ```
pub fn symbol_prefix(name: &str) -> String {
    let mut prefix: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    // Names that begin with an underscore are the C implementation's own.
    if !prefix.starts_with(|c: char| c.is_ascii_alphabetic()) {
        prefix.insert(0, 'm');
    }
    prefix
}

/// The header for `meta`, with functions called `PREFIX_run`, `PREFIX_plan` and `PREFIX_shapes`.
pub fn header(prefix: &str, meta: &Meta, weights: HeaderWeights) -> String {
    let name = symbol_prefix(prefix);
    let text = Header {
        upper: name.to_ascii_uppercase(),
        name,
        meta,
        weights,
        out: String::new(),
    };
    text.build()
}

struct Header<'a> {
    name: String,
    upper: String,
    meta: &'a Meta,
    weights: HeaderWeights,
    out: String,
}

/// Writing to a `String` cannot fail.
macro_rules! emit {
    ($self:ident, $($arg:tt)*) => {{
        let _ = writeln!($self.out, $($arg)*);
    }};
}

impl Header<'_> {
    fn build(mut self) -> String {
        let guard = format!("BROLGA_MODEL_{}_H", self.upper);
        self.introduction();
        emit!(
            self,
            "#ifndef {guard}\n#define {guard}\n\n#include <stddef.h>\n#include <stdint.h>\n"
        );
        emit!(self, "#ifdef __cplusplus\nextern \"C\" {{\n#endif\n");
        self.shared();
        self.description();
        self.nodes();
        self.functions();
        emit!(self, "#ifdef __cplusplus\n}}\n#endif\n\n#endif /* {guard} */");
        self.out
    }

    fn introduction(&mut self) {
        let (name, upper, meta) = (&self.name, &self.upper, self.meta);
        let out = &mut self.out;
        let mut line = |text: String| {
            let _ = writeln!(out, "{}", format!(" * {text}").trim_end());
        };
        let inputs: Vec<String> = (0..meta.inputs.len()).map(|i| format!("input_{i}")).collect();
        let outputs: Vec<String> = (0..meta.outputs.len()).map(|i| format!("output_{i}")).collect();
        let dims = vec!["1"; meta.symbols.len().max(1)].join(", ");
        line(format!(
            "Model `{}`, compiled by {} for {}.",
            comment(&meta.name),
            comment(&meta.compiler),
            meta.target
        ));
        line("Generated; do not edit.".into());
        if !meta.features.is_empty() {
            line(format!("The CPU must have: {}.", comment(&meta.features.join(", "))));
            line("On another, every function does nothing and returns BROLGA_ERROR_CPU_FEATURES.".into());
        }
        line(String::new());
        line(format!(
            "{name}_run is re-entrant. Threads may run the model at the same time when each has its own"
        ));
        line("context, arena and outputs; the weights are only read and are shared by all.".into());
        line(String::new());
        line(
            "Inputs and outputs are dense, row-major, and aligned to their element type; outputs overlap neither"
                .into(),
        );
        line(
            "inputs nor each other, but for an output that may be the memory of an input: it may be all of it.".into(),
        );
        line(String::new());
        line("Example:".into());
        line(String::new());
        let memory = match self.weights {
            HeaderWeights::Embedded => String::new(),
            HeaderWeights::File => ", const void *weights".into(),
        };
        let dynamic = meta.outputs.iter().any(|output| output.dynamic);
        let extents = if dynamic {
            ", const uint64_t *out_bytes, int64_t *out_dims"
        } else {
            ""
        };
        line(format!(
            "  int32_t example(const void *const *inputs, void **outputs{memory}{extents}) {{"
        ));
        if meta.symbols.is_empty() {
            line("    const int64_t *dims = NULL;".into());
        } else {
            let names: Vec<String> = meta.symbols.iter().map(|symbol| comment(symbol)).collect();
            line(format!("    int64_t dims[] = {{ {dims} }};  // {}", names.join(", ")));
        }
        line("    uint64_t arena_bytes = 0;".into());
        line(format!("    int32_t status = {name}_plan(dims, 1, &arena_bytes);"));
        line("    if (status != BROLGA_OK) return status;".into());
        line("    void *memory = malloc((size_t)arena_bytes + 63);  // <stdlib.h>".into());
        line("    if (memory == NULL) return BROLGA_ERROR_OUT_OF_MEMORY;".into());
        line("    brolga_ctx ctx;".into());
        let weights = match self.weights {
            HeaderWeights::Embedded => "NULL",
            HeaderWeights::File => "weights",
        };
        line(format!(
            "    {name}_ctx_init(&ctx, {weights}, dims, brolga_align(memory), arena_bytes);"
        ));
        if dynamic {
            line("    ctx.out_bytes = out_bytes;  // of the memory at each output; where outputs[n] is NULL, ctx.alloc gives it".into());
            line(format!(
                "    ctx.out_dims = out_dims;  // {upper}_OUTPUT_DIMS extents, after the run"
            ));
        }
        line(format!(
            "    status = {name}_run(&ctx, inputs, outputs);  // print brolga_error_string(status)"
        ));
        line("    free(memory);".into());
        line("    return status;".into());
        line("  }".into());
        line(String::new());
        line(format!(
            "where inputs is {{ {} }} and outputs is {{ {} }};",
            inputs.join(", "),
            outputs.join(", ")
        ));
        line(format!(
            "{name}_shapes tells the extents of the outputs ({upper}_OUTPUT_DIMS numbers in all)."
        ));
        let body = std::mem::take(&mut self.out);
        emit!(self, "/*\n{} */", body);
    }

    /// What all models have in common; the first header that is included defines it.
    fn shared(&mut self) {
        let version = ctx::ABI_VERSION;
        emit!(
            self,
            "#ifndef BROLGA_ABI_VERSION\n#define BROLGA_ABI_VERSION {version}\n"
        );
        emit!(self, "/* Programs follow System V on every x86-64 system. */");
        emit!(self, "#if defined(_WIN32) && (defined(__x86_64__) || defined(_M_X64))");
        emit!(self, "#if !defined(__GNUC__) && !defined(__clang__)");
        emit!(
            self,
            "#error \"this compiler cannot call System V functions; use clang or gcc\""
        );
        emit!(
            self,
            "#endif\n#define BROLGA_CALL __attribute__((sysv_abi))\n#else\n#define BROLGA_CALL\n#endif\n"
        );

        emit!(
            self,
            "/* A status: a code in the low {DETAIL_SHIFT} bits, a detail above them. */\nenum {{"
        );
        for &code in ErrorCode::ALL {
            let comma = if Some(&code) == ErrorCode::ALL.last() { "" } else { "," };
            emit!(self, "  {} = {}{comma}", code.c_name(), code as i32);
        }
        emit!(self, "}};\n");
        emit!(
            self,
            "static inline const char *brolga_error_string(int32_t status) {{\n  switch (status & 0xff) {{"
        );
        for &code in ErrorCode::ALL {
            emit!(self, "    case {}: return {};", code.c_name(), literal(code.text()));
        }
        emit!(self, "    default: return \"unknown error\";\n  }}\n}}\n");

        emit!(
            self,
            "/* Element types. f16 and bf16 are stored as uint16_t, bool as uint8_t; so is the code of a smaller float. Integers of \
             fewer\n   than 8 bits are stored as int8_t and uint8_t, one in a byte; str as the uint32_t that a string has for a \
             number. */\nenum {{"
        );
        for &dtype in DType::ALL {
            let comma = if Some(&dtype) == DType::ALL.last() { "" } else { "," };
            let c_name = dtype.name().to_ascii_uppercase();
            emit!(self, "  BROLGA_{c_name} = {}{comma}", dtype as u8);
        }
        emit!(self, "}};\n");

        self.out.push_str(SIGNATURES);
        emit!(self, "struct brolga_ctx {{");
        for &(declaration, offset, lines) in ctx::C_FIELDS {
            let text: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
            emit!(self, "  /* {offset:3}: {} */\n  {declaration};", text.join(" "));
        }
        emit!(self, "}};\n\n#elif BROLGA_ABI_VERSION != {version}");
        emit!(
            self,
            "#error \"headers of different Brolga ABI versions in one file\"\n#endif\n"
        );
    }

    /// Whether the caller has to do with strings.
    fn has_strings(&self) -> bool {
        let inputs = self.meta.inputs.iter().map(|i| i.dtype);
        let mut all = inputs.chain(self.meta.outputs.iter().map(|o| o.dtype));
        all.any(|d| d == DType::Str)
    }

    /// Macros that describe this model.
    fn description(&mut self) {
        let Header { name, upper, meta, .. } = self;
        let (name, upper, meta) = (name.clone(), upper.clone(), *meta);
        emit!(self, "#define {upper}_INPUT_COUNT {}", meta.inputs.len());
        emit!(self, "#define {upper}_OUTPUT_COUNT {}", meta.outputs.len());
        emit!(self, "/* How many numbers {name}_shapes writes. */");
        emit!(self, "#define {upper}_OUTPUT_DIMS {}", meta.output_dims());
        emit!(self, "#define {upper}_SYMBOL_COUNT {}", meta.symbols.len());
        for (i, symbol) in meta.symbols.iter().enumerate() {
            emit!(self, "#define {upper}_SYMBOL_{i}_NAME {}", literal(symbol));
        }
        for (i, guard) in meta.guards.iter().enumerate() {
            emit!(self, "/* Guard {i}: {} */", comment(guard));
        }
        for (i, size) in meta.sizes.iter().enumerate() {
            emit!(self, "/* Size {i}: {} */", comment(size.trim_end_matches(',')));
        }
        for (i, check) in meta.checks.iter().enumerate() {
            emit!(self, "/* Check {i} of the model's data: {} */", comment(check));
        }
        for (i, name) in meta.names.iter().enumerate() {
            let at = meta.symbols.len() + i;
            emit!(self, "/* dims[{at}], for host operators: {} */", comment(name));
        }
        if !meta.strings.is_empty() || self.has_strings() {
            let count = meta.strings.len();
            emit!(
                self,
                "\n/* Strings are numbers: those that the model knows are below, in order; equal strings have equal numbers. */"
            );
            emit!(self, "#define {upper}_STRING_COUNT {count}");
            for (i, s) in meta.strings.iter().enumerate() {
                emit!(self, "#define {upper}_STRING_{i} {}", literal(s));
            }
        }
        for (i, input) in meta.inputs.iter().enumerate() {
            let shape = comment(&meta.input_shape(input));
            emit!(
                self,
                "\n/* Input {i}: {} {} {shape} */",
                comment(&input.name),
                input.dtype
            );
            emit!(self, "#define {upper}_INPUT_{i}_NAME {}", literal(&input.name));
            emit!(
                self,
                "#define {upper}_INPUT_{i}_DTYPE BROLGA_{}",
                input.dtype.name().to_ascii_uppercase()
            );
            emit!(self, "#define {upper}_INPUT_{i}_RANK {}", input.dims.len());
            for (axis, dim) in input.dims.iter().enumerate() {
                let of = format!("{upper}_INPUT_{i}_DIM_{axis}");
                match *dim {
                    Dim::Const(n) => emit!(self, "#define {of} {n}"),
                    Dim::Symbol(s) => emit!(self, "#define {of}_SYMBOL {s}"),
                }
            }
            if let Some(at) = input.default {
                emit!(
                    self,
                    "/* The model's default for it, given a context: pass this where there is nothing else to pass. */"
                );
                emit!(
                    self,
                    "#define {upper}_INPUT_{i}_DEFAULT(ctx) ((const void *)((ctx)->weights + UINT64_C({at})))"
                );
            }
        }
        for (i, output) in meta.outputs.iter().enumerate() {
            let shape = comment(&output.shape);
            emit!(
                self,
                "\n/* Output {i}: {} {} {shape} */",
                comment(&output.name),
                output.dtype
            );
            emit!(self, "#define {upper}_OUTPUT_{i}_NAME {}", literal(&output.name));
            emit!(
                self,
                "#define {upper}_OUTPUT_{i}_DTYPE BROLGA_{}",
                output.dtype.name().to_ascii_uppercase()
            );
            emit!(self, "#define {upper}_OUTPUT_{i}_RANK {}", output.rank);
            if output.dynamic {
                emit!(self, "/* Only a run tells its extents. */");
                emit!(self, "#define {upper}_OUTPUT_{i}_DYNAMIC 1");
            }
        }
        for alias in &meta.aliases {
            emit!(
                self,
                "\n/* Output {} may be the memory of input {}: with one pointer for both, the run updates it in place. */",
                alias.output,
                alias.input
            );
            emit!(self, "#define {upper}_OUTPUT_{}_ALIAS {}", alias.output, alias.input);
        }
        if !meta.host_ops.is_empty() {
            emit!(
                self,
                "\n/* Host operators, which the caller supplies in the context's host array. */"
            );
            emit!(self, "#define {upper}_HOST_COUNT {}", meta.host_ops.len());
            for (i, op) in meta.host_ops.iter().enumerate() {
                emit!(
                    self,
                    "/* Host operator {i}, node {}: {} */",
                    comment(&op.node),
                    comment(&op.text)
                );
            }
        }
    }

    /// The names behind `error_node`.
    fn nodes(&mut self) {
        let (name, meta) = (self.name.clone(), self.meta);
        emit!(
            self,
            "\n/* The model's node of a number in ctx->error_node; NULL when no node is to blame. */"
        );
        emit!(self, "static inline const char *{name}_node_name(uint32_t node) {{");
        if meta.nodes.is_empty() {
            emit!(self, "  (void)node;\n  return NULL;\n}}");
            return;
        }
        emit!(self, "  switch (node) {{");
        for (i, node) in meta.nodes.iter().enumerate() {
            emit!(self, "    case {i}: return {};", literal(node));
        }
        emit!(self, "    default: return NULL;\n  }}\n}}");
    }

    fn functions(&mut self) {
        let Header { name, upper, meta, .. } = self;
        let (name, upper, bytes) = (name.clone(), upper.clone(), meta.weights_bytes);
        emit!(self, "\n#define {upper}_WEIGHTS_BYTES UINT64_C({bytes})");
        emit!(self, "#define {upper}_WEIGHTS_ALIGN {}", ctx::ALIGN);
        let weights = match self.weights {
            HeaderWeights::Embedded => {
                emit!(
                    self,
                    "/* The packed weights, read only. */\nextern const uint8_t {name}_weights[];\n"
                );
                format!("weights != NULL ? (const uint8_t *)weights : {name}_weights")
            }
            HeaderWeights::File => {
                emit!(
                    self,
                    "/* The caller loads or maps the weights file at a multiple of {upper}_WEIGHTS_ALIGN. */\n"
                );
                "(const uint8_t *)weights".to_owned()
            }
        };
        let text = FUNCTIONS
            .replace("@name@", &name)
            .replace("@upper@", &upper)
            .replace("@weights@", &weights);
        self.out.push_str(&text);
    }
}

const SIGNATURES: &str = r"typedef struct brolga_ctx brolga_ctx;

/* An input and an output that are the same memory, by number. */
typedef struct brolga_alias {
  uint32_t input;
  uint32_t output;
} brolga_alias;

/* The body of a parallel loop: iterations begin to end, exclusive, as worker number worker. */
typedef void (BROLGA_CALL *brolga_body)(void *arg, int64_t begin, int64_t end, uint32_t worker);

/* Calls body on pieces that cover 0 to n once, each worker number on one thread at a time; returns when all are done. */
typedef int32_t (BROLGA_CALL *brolga_parallel_for)(brolga_ctx *ctx, brolga_body body, void *arg, int64_t n);

/* Memory for one run, freed by the caller after it; what became an output's, when the caller is done with the output. */
typedef void *(BROLGA_CALL *brolga_alloc)(brolga_ctx *ctx, uint64_t bytes, uint64_t align);

/* A host operator; 0 is success. */
typedef int32_t (BROLGA_CALL *brolga_host)(void *user, uint32_t index, brolga_ctx *ctx, const void *const *inputs,
                                           void *const *outputs);

/* The first address from memory on that is a multiple of 64. */
static inline void *brolga_align(void *memory) {
  return (void *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
}

";

const FUNCTIONS: &str = r"/* Bytes of arena that a run with these dims needs, for this number of workers. dims has @upper@_SYMBOL_COUNT values.
 * Not BROLGA_OK when the dims break an assumption or a size does not fit; the status shifted right by 8 tells which:
 *   BROLGA_ERROR_GUARD      the number of the guard above,
 *   BROLGA_ERROR_TOO_LARGE  the number of the size above that is beyond 64 bits,
 *   BROLGA_ERROR_BAD_DIMS   0 when a value of dims is negative, else 1 and the number of the size above of which an
 *                           extent is negative. */
int32_t BROLGA_CALL @name@_plan(const int64_t *dims, uint32_t workers, uint64_t *arena_bytes);

/* The extents of all outputs, one output after the other: @upper@_OUTPUT_DIMS numbers. Not BROLGA_OK as for plan.
 * Of an output with @upper@_OUTPUT_n_DYNAMIC, the largest extents that are possible, or -1 where nothing bounds one. */
int32_t BROLGA_CALL @name@_shapes(const int64_t *dims, int64_t *out);

/* Runs the model. Returns a status: plan's when the dims are not right, BROLGA_ERROR_ARENA_TOO_SMALL when the arena is
 * smaller than plan says. error_code and error_node of the context then tell the first error, whatever failed, and
 * @name@_node_name its node; error_value the number that a check of the model's data found.
 * An output with @upper@_OUTPUT_n_DYNAMIC has extents that only the run tells. Where outputs[n] is NULL, the run allocates
 * it with the context's alloc, and leaves its address in outputs[n]; else out_bytes[n] of the context is the size of the
 * memory there, and BROLGA_ERROR_OUTPUT_TOO_SMALL the status when error_value bytes are needed. The extents of all outputs
 * are written to the context's out_dims, where that is not NULL. After an error the contents of the outputs are unspecified. */
int32_t BROLGA_CALL @name@_run(brolga_ctx *ctx, const void *const *inputs, void **outputs);

/* A serial context. arena must be a multiple of 64 and have the bytes that plan asked for. */
static inline void @name@_ctx_init(brolga_ctx *ctx, const void *weights, const int64_t *dims, void *arena,
                                   uint64_t arena_bytes) {
  ctx->abi_version = BROLGA_ABI_VERSION;
  ctx->workers = 1;
  ctx->weights = @weights@;
  ctx->arena = (uint8_t *)arena;
  ctx->arena_bytes = arena_bytes;
  ctx->dims = dims;
  ctx->parallel_for = NULL;
  ctx->alloc = NULL;
  ctx->host = NULL;
  ctx->host_user = NULL;
  ctx->error_code = BROLGA_OK;
  ctx->error_node = UINT32_MAX;
  ctx->aliases = NULL;
  ctx->alias_count = 0;
  ctx->user = NULL;
  ctx->out_dims = NULL;
  ctx->out_bytes = NULL;
  ctx->error_value = 0;
}

";

/// Text that may stand in a comment: one line, and nothing that ends the comment or begins another.
fn comment(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // A backslash would join a line comment of the example with the next line.
    line.replace("*/", "* /").replace("/*", "/ *").replace('\\', "/")
}

/// A C string literal. Everything outside a safe set is an octal escape of exactly three digits, which, other than a
/// hexadecimal one, cannot swallow the next character; `?` is escaped because of trigraphs.
fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b" !#%&'()*+,-./:;<=>@[]^_`{|}~$".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "\\{byte:03o}");
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
