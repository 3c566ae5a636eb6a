//! What a model has that stands in the way of compiling it, or that its owner may want to know, all at once.
//!
//! A model that imports is looked at as it is. One that does not is walked again by a survey, which goes on behind errors
//! (see `survey`), so that mending what is listed does not uncover another error of the same kind.

use super::error::{Error, Unsupported};
use super::import::{Assumed, Defaults, Importer, Slot, domain, node_name, walk};
use super::interface::group;
use super::model::{self, Model};
use super::signature::{Symbols, contradiction, declares, map_parts, note_symbols};
use super::{Options, attributes, folder, import, redeclare};
use brolga_ir::{DType, Def, Graph, Value};
use onnx_protobuf::{GraphProto, NodeProto, TensorProto, ValueInfoProto, tensor_proto::DataLocation};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::path::Path;

/// What a finding is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An operator, a version, an attribute or an element type that is not supported.
    Unsupported,
    /// Something that contradicts ONNX or itself.
    Wrong,
    /// A file of external data that is missing or too short.
    MissingData,
    /// Nodes that were looked up by name only, since nothing is known of an operand.
    Unchecked,
    /// An extent of an input that the caller decides.
    DynamicInput,
    /// An extent that data tell while the model runs.
    DynamicNode,
    /// An input that shapes depend on.
    ShapeInput,
    /// An output whose declared shape is not the one that is computed.
    Declaration,
    /// An initializer that nothing reads.
    Unread,
    /// Arithmetic in f64 in a model that does not take f64.
    Double,
    /// A quantised operator that no integer kernel computes.
    Quantised,
    /// An operator that runs on the host, not in a kernel.
    Host,
}

impl Kind {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Unsupported => "unsupported",
            Kind::Wrong => "wrong",
            Kind::MissingData => "missing-data",
            Kind::Unchecked => "unchecked",
            Kind::DynamicInput => "dynamic-input",
            Kind::DynamicNode => "dynamic-node",
            Kind::ShapeInput => "shape-input",
            Kind::Declaration => "declaration",
            Kind::Unread => "unread",
            Kind::Double => "f64",
            Kind::Quantised => "quantised",
            Kind::Host => "host",
        }
    }

    /// True when a model with such a finding does not compile.
    pub fn refuses(self) -> bool {
        matches!(self, Kind::Unsupported | Kind::Wrong | Kind::MissingData)
    }
}

/// One thing found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What it is about.
    pub kind: Kind,
    /// The operator, input, file or size.
    pub subject: String,
    /// What was found.
    pub detail: String,
    /// The model's nodes (or initializers, or inputs) that it concerns.
    pub nodes: Vec<String>,
    /// What one can do, or that nothing has to be done.
    pub way_out: String,
}

/// A quantised operator of the model: one of whose operands is dequantised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quantised {
    /// The node.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// What of its operands keeps integer kernels away, where that shows in the model.
    pub reason: Option<String>,
}

/// What is found in a model.
#[derive(Default)]
pub struct Examination {
    /// All there is to say, what stands in the way first.
    pub findings: Vec<Finding>,
    /// The graph, where nothing stands in the way of importing it.
    pub graph: Option<Graph>,
    /// Operators that read what is dequantised and could be computed in integers.
    pub quantised: Vec<Quantised>,
}

/// Examines a model file.
///
/// # Errors
/// When the file cannot be read or is no model, or the options name what it does not have.
pub fn examine(path: impl AsRef<Path>, options: &Options) -> Result<Examination, Error> {
    let path = path.as_ref();
    let mut model = Model::parse(model::map(path)?, Some(folder(path)))?;
    let fail = |message: String| Error::Model {
        file: path.display().to_string(),
        message,
    };
    redeclare::shapes(model.proto.graph.mut_or_insert_default(), &options.shapes).map_err(fail)?;
    let mut symbols = Symbols::new(&options.sizes);
    for i in &model.proto.graph.input {
        note_symbols(i, &mut symbols);
    }
    symbols.check().map_err(fail)?;
    let imported = import::import(&mut model, options);
    let mut findings = vec![];
    external(&mut model, path, &mut findings);
    let options = Options {
        fixed: redeclare::constants(&model.proto.graph, options).map_err(fail)?,
        ..options.clone()
    };
    let strings = model.files.strings.clone();
    let graph = strings.scope(|| {
        let graph = match imported {
            Ok(graph) => Some(graph),
            Err(first) => {
                stopped(&mut model, &options, first, &mut findings);
                None
            }
        };
        // Once more, with the model's names: what they stand for says where sizes come from.
        let assumed = Assumed::default();
        if let Ok((im, g)) = walk(&mut model, &options, Defaults::None, &assumed, true) {
            dynamic(&im, g, graph.as_ref(), &mut findings);
            declarations(&im, g, graph.as_ref(), &mut findings);
            doubles(&im, g, &mut findings);
        }
        graph
    });
    let g = &model.proto.graph;
    unread(g, &mut findings);
    let quantised = quantised(g);
    findings.sort_by_key(|f| !f.kind.refuses());
    Ok(Examination {
        findings,
        graph,
        quantised,
    })
}

/// What keeps a model from being imported.
fn stopped(model: &mut Model, options: &Options, first: Error, findings: &mut Vec<Finding>) {
    let small = shape_inputs(&model.proto.graph);
    let before = findings.len();
    let assumed = Assumed::default();
    match walk(model, options, Defaults::None, &assumed, true) {
        Ok((mut im, g)) => {
            if let Err(e) = im.outputs(g) {
                findings.push(wrong(&e));
            }
            let operators: FxHashMap<String, i64> = im.opsets();
            for u in group(&im.missing) {
                findings.push(refused(u, &operators, &small));
            }
            let Some(s) = im.survey else { return };
            // Weights in files that are missing are listed with the files.
            let lacking = |e: &&Error| !e.to_string().contains(": external data ");
            findings.extend(s.wrong.iter().filter(lacking).map(wrong));
            if !s.passed_over.is_empty() {
                findings.push(Finding {
                    kind: Kind::Unchecked,
                    subject: "nodes behind what is listed above".into(),
                    detail: "looked up by name and operator set only: an operand's type is known to nobody \
                        until what is listed above is mended"
                        .into(),
                    nodes: s.passed_over,
                    way_out: "annotate the model with onnx.shape_inference.infer_shapes and ask again: \
                        annotated types are taken as given"
                        .into(),
                });
            }
        }
        Err(e) => findings.push(wrong(&e)),
    }
    // A survey makes some inputs constants that have a default; what was refused with them as inputs is said as it was.
    if !findings[before.min(findings.len())..].iter().any(|f| f.kind.refuses())
        && !findings.iter().any(|f| f.kind == Kind::MissingData)
    {
        findings.push(wrong(&first));
    }
}

fn wrong(e: &Error) -> Finding {
    let (subject, detail, nodes) = match e {
        Error::Node { node, message, .. } => (format!("node `{node}`"), message.clone(), vec![node.clone()]),
        Error::Model { message, .. } => ("the model".to_owned(), message.clone(), vec![]),
        other => ("the model".to_owned(), other.to_string(), vec![]),
    };
    let way_out = if detail.contains("--set") {
        "fix the size that is named there with --set"
    } else if detail.contains("--memory-limit") {
        "allow for more with --memory-limit, such as 64G"
    } else if detail.contains("has no attribute") {
        "rename or remove the attribute; other runtimes refuse it, too"
    } else {
        "onnx.checker.check_model(model, full_check=True) tells whether the file is valid; export it again \
            if it is not"
    };
    Finding {
        kind: Kind::Wrong,
        subject,
        detail,
        nodes,
        way_out: way_out.into(),
    }
}

/// Inputs that are integers of few elements, which shapes and branches may depend on.
fn shape_inputs(g: &GraphProto) -> Vec<String> {
    use onnx_protobuf::type_proto::Value as TypeValue;
    let known: FxHashSet<&str> = g.initializer.iter().map(|t| t.name.as_str()).collect();
    let small = |i: &&ValueInfoProto| match i.type_.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::TensorType(t)) => {
            matches!(t.elem_type, 6 | 7 | 9) && t.shape.as_ref().is_none_or(|s| s.dim.len() <= 1)
        }
        _ => false,
    };
    let inputs = g.input.iter().filter(|i| !known.contains(i.name.as_str()));
    inputs.filter(small).map(|i| i.name.clone()).collect()
}

fn refused(u: Unsupported, opsets: &FxHashMap<String, i64>, small: &[String]) -> Finding {
    let dom = u.operator.rsplit_once("::").map_or("", |(d, _)| d);
    let feature = &u.feature;
    let version = opsets
        .get(dom)
        .map_or(String::new(), |v| format!(" of operator set {v}"));
    let detail = match feature.as_str() {
        "" => format!("this operator{version} is not supported"),
        f => f.to_owned(),
    };
    let pins = small
        .iter()
        .map(|n| format!("--pin {n}=VALUE"))
        .collect::<Vec<_>>()
        .join(", ");
    let way_out = if feature.is_empty() {
        match dom {
            "" | "ai.onnx.ml" => "compose it of other operators when exporting, or cut the model in two at its \
                operands (onnx.utils.extract_model); docs/conformance.md lists what is supported"
                .to_owned(),
            "com.microsoft" => "export without ONNX Runtime's own operators: they come from its optimiser \
                (graph_optimization_level, optimum's --optimize)"
                .to_owned(),
            _ => "put its definition into the model as a function (ModelProto.functions), or compose it of \
                ONNX's operators"
                .to_owned(),
        }
    } else if feature.contains("--set") {
        "fix the size that is named there with --set".to_owned()
    } else if feature.contains("data") && !pins.is_empty() {
        format!("make the inputs that decide it constants, of these: {pins}")
    } else if feature.contains("operator set version") {
        let known = attributes::newest("").unwrap_or_default();
        format!(
            "convert the model: onnx.version_converter.convert_version(model, {known}); other domains have versions \
                of their own, in model.opset_import"
        )
    } else if ["sequence", "optional"].contains(&feature.as_str()) {
        "make its tensors inputs of their own when exporting; from Rust, `onnx::Options::holds` says which tensors \
            a sequence or an optional has"
            .to_owned()
    } else if feature.contains("sequence") {
        "make the number of iterations, or of tensors, known (constants, --pin, --set), or compute with one tensor \
            that has them along an axis (Concat, Scan) when exporting"
            .to_owned()
    } else if feature.contains("unknown rank") {
        format!(
            "give it a shape: --input-shape {}=1,3,?,?",
            u.nodes.first().map_or("NAME", |n| n.as_str())
        )
    } else if feature.starts_with("element type") {
        "cast to a type that is supported when exporting, in front of the model's inputs and behind its outputs"
            .to_owned()
    } else if feature.starts_with("attribute") {
        "export without the attribute".to_owned()
    } else if feature.starts_with("result") {
        "compute this result otherwise, or leave it out of the model's outputs".to_owned()
    } else {
        "change the node when exporting so that it does without, or cut the model in two there \
            (onnx.utils.extract_model)"
            .to_owned()
    };
    Finding {
        kind: Kind::Unsupported,
        subject: u.operator,
        detail,
        nodes: u.nodes,
        way_out,
    }
}

/// Goes through all tensors of a graph and its subgraphs that a file holds.
fn tensors<'g>(g: &'g GraphProto, f: &mut dyn FnMut(&'g TensorProto)) {
    g.initializer.iter().for_each(&mut *f);
    for a in g.node.iter().flat_map(|n| &n.attribute) {
        a.t.as_ref().into_iter().chain(&a.tensors).for_each(&mut *f);
        for inner in a.g.as_ref().into_iter().chain(&a.graphs) {
            tensors(inner, f);
        }
    }
}

/// Files of external data that are missing, or too short for what lies in them.
fn external(model: &mut Model, path: &Path, findings: &mut Vec<Finding>) {
    let Model { proto, files } = model;
    let beside = folder(path);
    let mut lacking: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    tensors(&proto.graph, &mut |t| {
        if t.data_location.enum_value() != Ok(DataLocation::EXTERNAL) {
            return;
        }
        let entry = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let location = entry("location").unwrap_or_default();
        let number = |key: &str| entry(key).and_then(|v| v.parse::<usize>().ok());
        let problem = match files.external(location) {
            Err(e) => e,
            Ok(file) => {
                let end = number("offset")
                    .unwrap_or(0)
                    .saturating_add(number("length").unwrap_or(0));
                let size = file.bytes().len();
                if end <= size {
                    return;
                }
                format!("external data at `{location}` has {size} bytes, and tensors lie beyond them")
            }
        };
        let all = lacking.entry(location.to_owned()).or_insert((problem, vec![]));
        all.1.push(t.name.clone());
    });
    for (location, (detail, nodes)) in lacking {
        findings.push(Finding {
            kind: Kind::MissingData,
            subject: format!("file `{location}`"),
            way_out: if detail.contains("tensors lie beyond") {
                "copy the file again: it is not whole".to_owned()
            } else if detail.contains("the model's folder") {
                format!(
                    "put the file into {}, load the model, and save it with \
                        onnx.save_model(..., save_as_external_data=True)",
                    beside.display()
                )
            } else {
                format!(
                    "put the file beside the model, into {}: it was written with it",
                    beside.display()
                )
            },
            detail,
            nodes,
        });
    }
}

/// Every size that is not known when the model is compiled, and where it comes from.
fn dynamic(im: &Importer<'_>, g: &GraphProto, graph: Option<&Graph>, findings: &mut Vec<Finding>) {
    let built = &im.graph.graph;
    let assumed: FxHashSet<&str> = match &im.survey {
        Some(s) => s.assumed.iter().map(String::as_str).collect(),
        None => FxHashSet::default(),
    };
    let names = |i: &ValueInfoProto| [&[i.name.clone()][..], &map_parts(&i.name)].concat();
    let declared: FxHashSet<String> = g.input.iter().flat_map(names).collect();
    for input in &built.inputs {
        if assumed.contains(input.name.as_str()) || !declared.contains(&*input.name) {
            continue;
        }
        let ty = built.ty(input.value);
        for (axis, d) in ty.shape.iter().enumerate().filter(|(_, d)| d.as_const().is_none()) {
            findings.push(Finding {
                kind: Kind::DynamicInput,
                subject: format!("`{d}`"),
                detail: format!("axis {axis} of input `{}`: {ty}", input.name),
                nodes: vec![input.name.clone()],
                way_out: format!("compiled for any size; --set {d}=N fixes it, which may be faster"),
            });
        }
    }
    let mut deciding: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for r in &graph.unwrap_or(built).reads {
        let bound = match &r.bound {
            Some(b) => format!("at most {}", b.brief()),
            None => "without a bound: memory is asked for while the model runs".into(),
        };
        let from = sources(graph.unwrap_or(built), r.value);
        for name in &from {
            deciding.entry(name.clone()).or_default().push(r.origin.to_string());
        }
        findings.push(Finding {
            kind: Kind::DynamicNode,
            subject: format!("`{}`", r.symbol),
            detail: format!("data tell this size in the run, {bound}"),
            nodes: vec![r.origin.to_string()],
            way_out: match &from[..] {
                [name] => format!("supported; --pin {name}=VALUE makes it known when the model is compiled"),
                [_, _, ..] => {
                    let pins: Vec<String> = from.iter().map(|n| format!("--pin {n}=VALUE")).collect();
                    format!("supported; {} make it known when the model is compiled", pins.join(" "))
                }
                [] => "supported: memory for what has it is found in the run; nothing has to be done".into(),
            },
        });
    }
    for (name, mut nodes) in deciding {
        nodes.dedup();
        findings.push(Finding {
            kind: Kind::ShapeInput,
            subject: format!("input `{name}`"),
            detail: "sizes depend on its value".into(),
            way_out: format!("--pin {name}=VALUE makes it a constant"),
            nodes,
        });
    }
}

/// Outputs whose declared shapes are not those that are computed.
fn declarations(im: &Importer<'_>, g: &GraphProto, graph: Option<&Graph>, findings: &mut Vec<Finding>) {
    let names = im.names();
    for o in &g.output {
        let made = graph.and_then(|g| {
            g.outputs
                .iter()
                .find(|(name, _)| *name == o.name)
                .map(|(_, v)| g.ty(*v))
        });
        let found = match (made, names.get(o.name.as_str())) {
            (Some(ty), _) => ty,
            (None, Some(Slot::Value(v))) => im.graph.ty(*v),
            (None, _) => continue,
        };
        // Another element type is an error.
        if let Some(e) = contradiction(o, found)
            && declares(o, found.dtype)
        {
            findings.push(Finding {
                kind: Kind::Declaration,
                subject: format!("output `{}`", o.name),
                detail: format!("it {e}"),
                nodes: vec![],
                way_out: "it has the shape that is computed; onnx.shape_inference.infer_shapes, or exporting again, \
                    declares it right"
                    .into(),
            });
        }
    }
}

/// The integer inputs that a value is computed from.
fn sources(graph: &Graph, v: Value) -> Vec<String> {
    let (mut seen, mut open) = (FxHashSet::default(), vec![v]);
    while let Some(v) = open.pop() {
        if seen.insert(v)
            && let Def::Node(n, _) = graph.def(v)
        {
            open.extend(&graph.nodes[n as usize].inputs);
        }
    }
    let decides = |i: &&brolga_ir::graph::Input| {
        let dtype = graph.ty(i.value).dtype;
        dtype.is_int() || dtype == DType::Bool
    };
    let all: Vec<_> = graph.inputs.iter().filter(|i| seen.contains(&i.value)).collect();
    // Where a tensor of floats or strings has a say, a value for the others settles nothing.
    match all.iter().all(decides) {
        true => all.iter().map(|i| i.name.clone()).collect(),
        false => vec![],
    }
}

/// Nodes that compute in f64, where no input or output is f64.
fn doubles(im: &Importer<'_>, g: &GraphProto, findings: &mut Vec<Finding>) {
    let graph = &im.graph.graph;
    let f64_declared = |v: &onnx_protobuf::ValueInfoProto| super::signature::elem_type(v) == 11;
    if g.input.iter().chain(&g.output).any(f64_declared) {
        return;
    }
    let names = im.names();
    let mut nodes = vec![];
    for (i, n) in g.node.iter().enumerate() {
        let double = |o: &String| match names.get(o.as_str()) {
            Some(Slot::Value(v)) => graph.ty(*v).dtype == DType::F64 && graph.as_constant(*v).is_none(),
            _ => false,
        };
        if n.output.iter().any(double) {
            nodes.push(node_name(n, i));
        }
    }
    if !nodes.is_empty() {
        findings.push(Finding {
            kind: Kind::Double,
            subject: "f64".into(),
            detail: "these nodes compute in f64, though no input or output of the model is f64".into(),
            nodes,
            way_out: "remove the Cast to double (or the float64 constant) in front of them when exporting: \
                vectors hold half as many"
                .into(),
        });
    }
}

/// Initializers that nothing reads.
fn unread(g: &GraphProto, findings: &mut Vec<Finding>) {
    let mut used: FxHashSet<&str> = FxHashSet::default();
    uses(g, &mut used);
    let idle: Vec<String> = g
        .initializer
        .iter()
        .map(|t| t.name.as_str())
        .filter(|n| !used.contains(n))
        .map(str::to_owned)
        .collect();
    if !idle.is_empty() {
        findings.push(Finding {
            kind: Kind::Unread,
            subject: "initializers".into(),
            detail: format!("nothing reads {} of {} initializers", idle.len(), g.initializer.len()),
            nodes: idle,
            way_out:
                "they cost nothing in what is compiled; if they should matter, the export lost the nodes that read them"
                    .into(),
        });
    }
}

fn uses<'g>(g: &'g GraphProto, used: &mut FxHashSet<&'g str>) {
    used.extend(g.output.iter().map(|o| o.name.as_str()));
    for n in &g.node {
        used.extend(n.input.iter().map(String::as_str));
        for inner in n
            .attribute
            .iter()
            .flat_map(|a| a.g.as_ref().into_iter().chain(&a.graphs))
        {
            uses(inner, used);
        }
    }
}

/// Products of dequantised tensors, and what keeps integer kernels from computing them.
fn quantised(g: &GraphProto) -> Vec<Quantised> {
    const PRODUCTS: [&str; 4] = ["Conv", "ConvTranspose", "Gemm", "MatMul"];
    let mut maker: FxHashMap<&str, &NodeProto> = FxHashMap::default();
    for n in &g.node {
        maker.extend(n.output.iter().map(|o| (o.as_str(), n)));
    }
    let constants: FxHashMap<&str, &TensorProto> = g.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut out = vec![];
    for (i, n) in g.node.iter().enumerate() {
        if !domain(&n.domain).is_empty() || !PRODUCTS.contains(&n.op_type.as_str()) {
            continue;
        }
        let dequantised = |k: usize| {
            let by = n.input.get(k).and_then(|x| maker.get(x.as_str()));
            by.filter(|d| d.op_type == "DequantizeLinear").copied()
        };
        let (x, w) = (dequantised(0), dequantised(1));
        if x.is_none() && w.is_none() {
            continue;
        }
        let problem = |d: Option<&NodeProto>, k: usize| -> Option<String> {
            let name = n.input.get(k).map_or("", String::as_str);
            let Some(d) = d else {
                return Some(format!(
                    "operand {k}, `{name}`, is not dequantised: both factors have to be bytes"
                ));
            };
            let scale = d.input.get(1).map_or("", String::as_str);
            if !constants.contains_key(scale) && maker.get(scale).is_none_or(|m| m.op_type != "Constant") {
                return Some(format!(
                    "the scale `{scale}` of operand {k} is computed while the model runs"
                ));
            }
            let code = match d.input.first().and_then(|q| constants.get(q.as_str())) {
                Some(t) => t.data_type,
                None => d
                    .input
                    .get(2)
                    .and_then(|z| constants.get(z.as_str()))
                    .map_or(2, |t| t.data_type),
            };
            if k == 1 && code == 2 {
                return Some("operand 1 is uint8: integer kernels multiply by int8 weights".into());
            }
            let wide = !matches!(code, 2 | 3);
            wide.then(|| {
                format!(
                    "operand {k} is {}: integer kernels multiply int8 and uint8",
                    super::tensor::type_name(code)
                )
            })
        };
        out.push(Quantised {
            node: node_name(n, i),
            operator: n.op_type.clone(),
            reason: problem(x, 0).or_else(|| problem(w, 1)),
        });
    }
    out
}
