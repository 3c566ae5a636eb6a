//! Compiled models as a C caller has them: an object file, an archive or a shared library, its header, a C program.
//!
//! The program is `tests/c/harness.c`; what it needs to know of a model it takes from the generated header, through a few
//! lines of C that are written beside it.

use brolga::Compiled;
use brolga::output::WeightsIn;
use brolga_ir::Tensor;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `.o`
    Object,
    /// `.a`
    Archive,
    /// `.so`
    Shared,
}

/// A linked C program that runs one model once.
pub struct Harness {
    dir: tempfile::TempDir,
    program: PathBuf,
    weights: Option<PathBuf>,
    compiled: Compiled,
    /// What the program is started with, where that is not the system.
    emulator: Vec<&'static str>,
}

/// Whether a program can be started.
pub fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success())
}

impl Harness {
    /// Writes a compiled model's files, compiles the C program against them with every warning an error, and links it.
    ///
    /// # Panics
    /// When anything fails: what is said is then the compiler's.
    pub fn build(compiled: Compiled, kind: Kind, place: WeightsIn) -> Harness {
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let at = |name: &str| dir.path().join(name);
        let name = compiled.prefix.clone();
        let library = match kind {
            Kind::Object => at("model.o"),
            Kind::Archive => at("libmodel.a"),
            Kind::Shared => at("libmodel.so"),
        };
        match kind {
            Kind::Object => compiled.write_object(&library, place),
            Kind::Archive => compiled.write_archive(&library, place),
            Kind::Shared => compiled.write_shared(&library, place),
        }
        .unwrap_or_else(|e| panic!("{name}: {e}"));
        compiled
            .write_header(&at("model.h"), place)
            .expect("the header is written");
        let weights = (place == WeightsIn::File).then(|| at("model.weights"));
        if let Some(w) = &weights {
            compiled.write_weights(w).expect("the weights are written");
        }
        std::fs::write(at("describe.h"), describe(&compiled)).expect("a file is written");

        let aarch64 = compiled.meta.target.starts_with("aarch64") && std::env::consts::ARCH != "aarch64";
        let cc = if aarch64 { "aarch64-linux-gnu-gcc" } else { "cc" };
        let program = at("program");
        let mut command = Command::new(cc);
        command
            .args(["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-I"])
            .arg(dir.path());
        command
            .arg(crate::root().join("tests/c/harness.c"))
            .arg(&library)
            .arg("-o")
            .arg(&program);
        command.arg(format!("-Wl,-rpath,{}", dir.path().display()));
        if aarch64 {
            command.arg("-static");
        }
        let out = command.output().unwrap_or_else(|e| panic!("{cc}: {e}"));
        assert!(
            out.status.success(),
            "{name}: {cc}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        Harness {
            program,
            weights,
            compiled,
            emulator: if aarch64 { vec!["qemu-aarch64"] } else { vec![] },
            dir,
        }
    }

    /// Runs the program on another x86-64 CPU, by its name in QEMU.
    pub fn on_cpu(self, name: &'static str) -> Harness {
        Harness {
            emulator: vec!["qemu-x86_64", "-cpu", name],
            ..self
        }
    }

    /// The folder with the model's files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the program on inputs in the model's order; `dims` are the values of the model's symbols.
    ///
    /// # Panics
    /// When the program fails.
    pub fn run(&self, inputs: &[Tensor], dims: &[i64]) -> Vec<Tensor> {
        let given: Vec<Option<&Tensor>> = inputs.iter().map(Some).collect();
        self.try_run(&given, dims)
            .unwrap_or_else(|e| panic!("{}: {e}", self.compiled.meta.name))
    }

    /// [`Harness::run`] with the defaults of inputs that are not given.
    ///
    /// # Errors
    /// What the program says when it fails.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn try_run(&self, inputs: &[Option<&Tensor>], dims: &[i64]) -> Result<Vec<Tensor>, String> {
        let meta = &self.compiled.meta;
        let at = |name: String| self.dir.path().join(name);
        let mut command = match self.emulator[..] {
            [emulator, ref arguments @ ..] => {
                let mut c = Command::new(emulator);
                c.args(arguments).arg(&self.program);
                c
            }
            [] => Command::new(&self.program),
        };
        command
            .arg(self.weights.as_deref().unwrap_or(Path::new("-")))
            .arg(self.dir.path());
        command.args(dims.iter().map(i64::to_string));
        for (i, t) in inputs.iter().enumerate() {
            let file = at(format!("input_{i}"));
            match t {
                Some(t) => std::fs::write(file, t.bytes()).expect("an input is written"),
                None if file.exists() => std::fs::remove_file(file).expect("it is ours"),
                None => {}
            }
        }
        let out = command.output().expect("the program was linked");
        if !out.status.success() {
            return Err(format!("{}: {}", out.status, String::from_utf8_lossy(&out.stderr)));
        }
        // The program prints the extents of one output a line.
        let text = String::from_utf8(out.stdout).expect("numbers are printed");
        let outputs = text.lines().zip(&meta.outputs).enumerate().map(|(i, (line, o))| {
            let shape: Vec<usize> = line.split_whitespace().map(|n| n.parse().expect("an extent")).collect();
            let bytes = std::fs::read(at(format!("output_{i}"))).expect("an output was written");
            Tensor::new(brolga::tensors::ir_dtype(o.dtype), shape, bytes).expect("its bytes fit its shape")
        });
        let outputs: Vec<Tensor> = outputs.collect();
        assert_eq!(outputs.len(), meta.outputs.len(), "{text}");
        Ok(outputs)
    }
}

/// The model's macros as names that do not depend on the model.
fn describe(c: &Compiled) -> String {
    let (name, upper) = (&c.prefix, c.prefix.to_ascii_uppercase());
    let mut out = format!("#include \"model.h\"\n#define MODEL(x) {name}_##x\n#define OF_MODEL(x) {upper}_##x\n");
    let rows = |kind: &str, n: usize, what: &str| {
        let all: Vec<String> = (0..n).map(|i| format!("{upper}_{kind}_{i}_{what}")).collect();
        // C knows no empty arrays.
        if all.is_empty() { "0".to_owned() } else { all.join(", ") }
    };
    for (kind, n) in [("INPUT", c.meta.inputs.len()), ("OUTPUT", c.meta.outputs.len())] {
        for what in ["DTYPE", "RANK"] {
            let lower = format!("{}_{}", kind.to_lowercase(), what.to_lowercase());
            let _ = writeln!(out, "static const int {lower}[] = {{ {} }};", rows(kind, n, what));
        }
    }
    let dynamic: Vec<String> = (c.meta.outputs.iter())
        .map(|o| u8::from(o.dynamic).to_string())
        .collect();
    let dynamic = if dynamic.is_empty() {
        "0".to_owned()
    } else {
        dynamic.join(", ")
    };
    let _ = writeln!(out, "static const int output_dynamic[] = {{ {dynamic} }};");
    let alias = |i: usize| match c.meta.aliases.iter().any(|a| a.output as usize == i) {
        true => format!("{upper}_OUTPUT_{i}_ALIAS"),
        false => "-1".to_owned(),
    };
    let aliases: Vec<String> = (0..c.meta.outputs.len().max(1)).map(alias).collect();
    let _ = writeln!(out, "static const int output_alias[] = {{ {} }};", aliases.join(", "));
    out += "static const void *input_default(int i, const brolga_ctx *ctx) {\n  (void)ctx;\n  switch (i) {\n";
    for (i, _) in c
        .meta
        .inputs
        .iter()
        .enumerate()
        .filter(|(_, input)| input.default.is_some())
    {
        let _ = writeln!(out, "    case {i}: return {upper}_INPUT_{i}_DEFAULT(ctx);");
    }
    out += "    default: return NULL;\n  }\n}\n";
    out
}

/// Symbols that an object file leaves undefined, sorted, but for the functions of memory that it may call.
///
/// # Panics
/// When the bytes are no object file.
pub fn undefined(object: &[u8]) -> Vec<String> {
    use object::{Object, ObjectSymbol};
    let file = object::File::parse(object).expect("an object file");
    let names = file
        .symbols()
        .filter(|s| s.is_undefined())
        .filter_map(|s| s.name().ok().map(str::to_owned));
    let allowed = ["", "memcpy", "memmove", "memset", "memcmp"];
    let mut names: Vec<String> = names.filter(|n| !allowed.contains(&n.as_str())).collect();
    names.sort();
    names
}

/// The values of a model's symbols for inputs in its order.
pub fn dims(meta: &brolga_abi::Meta, inputs: &[Tensor]) -> Vec<i64> {
    let mut out = vec![0; meta.symbols.len()];
    for (i, t) in meta.inputs.iter().zip(inputs) {
        for (d, n) in i.dims.iter().zip(t.shape()) {
            if let brolga_abi::Dim::Symbol(s) = d {
                out[*s as usize] = *n as i64;
            }
        }
    }
    out
}
