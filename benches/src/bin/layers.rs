//! How long the passes over a tensor graph take by the number of its layers, with repeated layers optimised once and each by
//! itself: `cargo run --release -p brolga-benches --bin layers` prints the table of `docs/optimiser.md`. Layers are as PyTorch
//! exports them, of the sizes of bert_base and of a Llama of 125 million parameters; no two share a weight.

use brolga::ir::{Graph, Source, Target};
use brolga::passes::canonicalize::Canonicalize;
use brolga::passes::eqsat::EqSat;
use brolga::passes::pass::{Context, TensorPass};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

/// Numbers of layers.
const LAYERS: [usize; 6] = [1, 2, 4, 8, 16, 36];

/// Runs, of which the shortest counts.
const RUNS: usize = 5;

/// Tokens, what a token is, what it becomes between two products, and heads.
const TOKENS: usize = 128;
const WIDTH: usize = 768;
const HEADS: usize = 12;
const EACH: usize = WIDTH / HEADS;

/// Bytes that all weights are in, each at its own place.
struct Weights(Vec<u8>);

impl Source for Weights {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn name(&self) -> &str {
        "weights"
    }
}

/// A graph's text, as it is written.
struct Text {
    body: String,
    next: usize,
    weights: usize,
}

impl Text {
    /// Writes what a value is; its name.
    fn value(&mut self, what: &str) -> String {
        let name = format!("%{}", self.next);
        self.next += 1;
        writeln!(self.body, "  {name} = {what}").expect("a string takes all");
        name
    }

    /// An operator of values, with its attributes.
    fn op(&mut self, op: &str, operands: &[&str]) -> String {
        self.value(&format!("{op}({})", operands.join(", ")))
    }

    /// Weights of some extents.
    fn weight(&mut self, shape: &str) -> String {
        self.weights += 4;
        let at = self.weights;
        self.value(&format!("const f32[{shape}] file(\"weights\", {at})"))
    }

    /// A number over some extents.
    fn number(&mut self, shape: &str, x: f64) -> String {
        self.value(&format!("const f32[{shape}] splat {x:?}"))
    }

    /// A product with weights that takes rows of some width to rows of another.
    fn linear(&mut self, x: &str, from: usize, to: usize) -> String {
        let w = self.weight(&format!("{from}, {to}"));
        let dims = "lhs_batch=[] rhs_batch=[] lhs_contract=[2] rhs_contract=[0] acc=f32 out=f32";
        self.op(&format!("contract{{{dims}}}"), &[x, &w])
    }

    /// The same with a bias.
    fn biased(&mut self, x: &str, from: usize, to: usize) -> String {
        let y = self.linear(x, from, to);
        let b = self.weight(&format!("1, 1, {to}"));
        let b = self.op(&format!("broadcast{{shape=[1, {TOKENS}, {to}]}}"), &[&b]);
        self.op("add", &[&y, &b])
    }

    /// A value as heads.
    fn heads(&mut self, x: &str) -> String {
        let x = self.op(&format!("reshape{{shape=[1, {TOKENS}, {HEADS}, {EACH}]}}"), &[x]);
        self.op("transpose{perm=[0, 2, 1, 3]}", &[&x])
    }

    /// Attention of heads.
    fn attention(&mut self, q: &str, k: &str, v: &str, mask: &str) -> String {
        let batched = "lhs_batch=[0, 1] rhs_batch=[0, 1] lhs_contract=[3] rhs_contract=[2] acc=f32 out=f32";
        let scores = format!("1, {HEADS}, {TOKENS}, {TOKENS}");
        let k = self.op("transpose{perm=[0, 1, 3, 2]}", &[k]);
        let s = self.op(&format!("contract{{{batched}}}"), &[q, &k]);
        let scale = self.number(&scores, 1.0 / (EACH as f64).sqrt());
        let s = self.op("mul", &[&s, &scale]);
        let s = self.op("add", &[&s, mask]);
        let p = self.op("softmax{axis=3 zeros=never}", &[&s]);
        let y = self.op(&format!("contract{{{batched}}}"), &[&p, v]);
        let y = self.op("transpose{perm=[0, 2, 1, 3]}", &[&y]);
        self.op(&format!("reshape{{shape=[1, {TOKENS}, {WIDTH}]}}"), &[&y])
    }

    /// A layer of BERT.
    fn bert(&mut self, x: &str, mask: &str) -> String {
        const WIDE: usize = 3072;
        let [q, k, v] = [(); 3].map(|()| {
            let y = self.biased(x, WIDTH, WIDTH);
            self.heads(&y)
        });
        let y = self.attention(&q, &k, &v, mask);
        let y = self.biased(&y, WIDTH, WIDTH);
        let y = self.op("add", &[&y, x]);
        let x = self.layer_norm(&y);
        let y = self.biased(&x, WIDTH, WIDE);
        let wide = format!("1, {TOKENS}, {WIDE}");
        let root = self.number(&wide, std::f64::consts::SQRT_2);
        let e = self.op("div", &[&y, &root]);
        let e = self.op("erf", &[&e]);
        let one = self.number(&wide, 1.0);
        let e = self.op("add", &[&e, &one]);
        let y = self.op("mul", &[&y, &e]);
        let half = self.number(&wide, 0.5);
        let y = self.op("mul", &[&y, &half]);
        let y = self.biased(&y, WIDE, WIDTH);
        let y = self.op("add", &[&y, &x]);
        self.layer_norm(&y)
    }

    fn layer_norm(&mut self, x: &str) -> String {
        let [a, b] = [(); 2].map(|()| self.weight(&WIDTH.to_string()));
        self.op("layer_norm{axis=2 eps=1e-12}", &[x, &a, &b])
    }

    /// A layer of Llama.
    fn llama(&mut self, x: &str, mask: &str, [cos, sin]: [&str; 2]) -> String {
        const WIDE: usize = 2048;
        let y = self.rms_norm(x);
        let [q, k, v] = [(); 3].map(|()| {
            let y = self.linear(&y, WIDTH, WIDTH);
            self.heads(&y)
        });
        let [q, k] = [q, k].map(|h| {
            let half = EACH / 2;
            let sizes = format!("sizes=[1, {HEADS}, {TOKENS}, {half}] steps=[1, 1, 1, 1]");
            let first = self.op(&format!("slice{{starts=[0, 0, 0, 0] {sizes}}}"), &[&h]);
            let second = self.op(&format!("slice{{starts=[0, 0, 0, {half}] {sizes}}}"), &[&h]);
            let second = self.op("neg", &[&second]);
            let turned = self.op("concat{axis=3}", &[&second, &first]);
            let (a, b) = (self.op("mul", &[&h, cos]), self.op("mul", &[&turned, sin]));
            self.op("add", &[&a, &b])
        });
        let y = self.attention(&q, &k, &v, mask);
        let y = self.linear(&y, WIDTH, WIDTH);
        let x = self.op("add", &[x, &y]);
        let y = self.rms_norm(&x);
        let (gate, up) = (self.linear(&y, WIDTH, WIDE), self.linear(&y, WIDTH, WIDE));
        let s = self.op("sigmoid", &[&gate]);
        let s = self.op("mul", &[&gate, &s]);
        let y = self.op("mul", &[&s, &up]);
        let y = self.linear(&y, WIDE, WIDTH);
        self.op("add", &[&x, &y])
    }

    fn rms_norm(&mut self, x: &str) -> String {
        let whole = format!("1, {TOKENS}, {WIDTH}");
        let two = self.number(&whole, 2.0);
        let y = self.op("pow", &[x, &two]);
        let y = self.op("reduce{kind=sum axes=[2]}", &[&y]);
        let rows = format!("1, {TOKENS}, 1");
        let n = self.number(&rows, WIDTH as f64);
        let y = self.op("div", &[&y, &n]);
        let eps = self.number(&rows, 1e-6);
        let y = self.op("add", &[&y, &eps]);
        let y = self.op("sqrt", &[&y]);
        let y = self.op("reciprocal", &[&y]);
        let y = self.op(&format!("broadcast{{shape=[{whole}]}}"), &[&y]);
        let y = self.op("mul", &[x, &y]);
        let w = self.weight(&format!("1, 1, {WIDTH}"));
        let w = self.op(&format!("broadcast{{shape=[{whole}]}}"), &[&w]);
        self.op("mul", &[&w, &y])
    }
}

/// A model of so many layers.
fn model(family: &str, layers: usize) -> Graph {
    let turn = format!("f32[1, {HEADS}, {TOKENS}, {EACH}]");
    let head = format!(
        "graph @layers(%0 x: f32[1, {TOKENS}, {WIDTH}], %1 mask: f32[1, {HEADS}, {TOKENS}, {TOKENS}], %2 cos: {turn}, %3 sin: {turn}) {{\n"
    );
    let mut t = Text {
        body: head,
        next: 4,
        weights: 0,
    };
    let mut x = "%0".to_owned();
    for _ in 0..layers {
        x = match family {
            "BERT" => t.bert(&x, "%1"),
            _ => t.llama(&x, "%1", ["%2", "%3"]),
        };
    }
    let text = format!("{}  return y = {x}\n}}\n", t.body);
    // No matrix has the elements of another, of which a part only is looked at.
    let floats = (0..WIDTH * 4 * WIDTH + 16 * layers).map(|i| (i * i % 8191) as f32);
    let bytes = floats.flat_map(f32::to_le_bytes).collect();
    let weights: Arc<dyn Source> = Arc::new(Weights(bytes));
    Graph::parse(&text, &|_| Some(weights.clone())).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The milliseconds of the passes, and the e-nodes at the end of saturation.
fn time(g: &Graph, unfolded: bool) -> (f64, String) {
    let pass = EqSat {
        unfolded,
        ..EqSat::default()
    };
    let (mut shortest, mut nodes) = (f64::INFINITY, String::new());
    for _ in 0..RUNS {
        let mut cx = Context::new(Target::x86_64_v3());
        let start = Instant::now();
        let canonical = Canonicalize::default().rewrite(g, &mut cx).expect("it is valid");
        let cut = pass.rewrite(&canonical, &mut cx).expect("it has kernels");
        shortest = shortest.min(start.elapsed().as_secs_f64() * 1e3);
        std::hint::black_box(cut);
        let report = cx
            .remarks
            .iter()
            .find_map(|r| r.split_once(" e-nodes"))
            .expect("a report");
        nodes = report.0.rsplit(' ').next().unwrap_or_default().to_owned();
    }
    (shortest, nodes)
}

fn main() {
    println!("| layer | layers | operations | e-nodes, layers apart | ms | e-nodes, once for all | ms |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for family in ["BERT", "Llama"] {
        for layers in LAYERS {
            let g = model(family, layers);
            let ((apart, many), (once, few)) = (time(&g, true), time(&g, false));
            let operations = g.nodes.len();
            println!("| {family} | {layers} | {operations} | {many} | {apart:.1} | {few} | {once:.1} |");
        }
    }
}
