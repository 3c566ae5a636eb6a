//! GGUF files: small random models of each architecture against what transformers computes with the weights that they have, formats of blocks
//! against `gguf.quants`, tokenizers against those that the files were made of, and files that are wrong.

use brolga::generate::Model;
use brolga::generate::files::Files;
use brolga::generate::text::Tokenizer;
use brolga::ir::ops::{BlockFormat, restore_block};
use brolga::ir::{Attr, Build, DType, Graph, GraphBuilder, Op, Tensor, Type};
use brolga::{Options, compile, npy, source};
use brolga_frontend::safetensors::WeightType;
use brolga_tests::{relative_error, root, run};
use std::path::PathBuf;

/// The largest error, over the largest magnitude of the reference, of weights in floats: both sides sum in f32, in other orders.
const TOLERANCE: f64 = 1e-5;

/// The same of weights in bf16, with which products round their other operand to 8 bits.
const TOLERANCE_BF16: f64 = 1e-2;

/// The same of weights of few bits: products round their other operand to integers of 8 bits by blocks of 32, an error of up to 1 / 254 of the
/// largest element each, which a layer has seven of, one behind the other.
const TOLERANCE_BITS: f64 = 4e-2;

/// Models whose matrices are packed in blocks.
const PACKED: [&str; 3] = ["gpt2_small", "mixed", "small"];

fn home() -> PathBuf {
    root().join("tests/data/gguf")
}

/// The models by their names.
fn models() -> Vec<String> {
    let names = std::fs::read_dir(home()).expect("it is there").flatten();
    let names = names.filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".gguf")?.to_owned()));
    let mut all: Vec<String> = names.filter(|n| !n.starts_with("tokenizer-")).collect();
    all.sort();
    assert!(all.len() >= 18, "{all:?}");
    all
}

fn file(name: &str) -> PathBuf {
    home().join(format!("{name}.gguf"))
}

/// Tokens and logits of a model.
fn reference(name: &str) -> [Tensor; 2] {
    let all = npy::read_npz(&home().join(format!("{name}.npz"))).unwrap_or_else(|e| panic!("{e}"));
    ["input_ids", "logits"].map(|n| all.iter().find(|(own, _)| own == n).expect("it is there").1.clone())
}

fn logits(name: &str, options: &Options) -> Tensor {
    let [ids, _] = reference(name);
    let session = source::graph_for(&file(name), options)
        .and_then(|g| compile(&g, options))
        .and_then(|c| c.session())
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let inputs = [("input_ids".to_owned(), ids)].into();
    run(&session, &inputs)
        .unwrap_or_else(|e| panic!("{name}: {e}"))
        .swap_remove(0)
        .1
}

/// The largest error that a model's logits may have.
fn tolerance(name: &str) -> f64 {
    match name {
        n if PACKED.contains(&n) => TOLERANCE_BITS,
        n if n.ends_with("_bf16") => TOLERANCE_BF16,
        _ => TOLERANCE,
    }
}

fn with_weights(weights: Option<WeightType>) -> Options {
    let mut options = Options::default();
    options.folder.weights = weights;
    options
}

#[test]
fn every_architecture_computes_what_transformers_does() {
    let mut wrong = vec![];
    for name in models() {
        let [_, wanted] = reference(&name);
        let error = relative_error(&logits(&name, &Options::default()), &wanted);
        if error.is_nan() || error > tolerance(&name) {
            wrong.push(format!("{name}: off by {error:e}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Blocks are decoded exactly where floats are asked for.
#[test]
fn packed_models_are_exact_in_floats() {
    for name in PACKED {
        let [_, wanted] = reference(name);
        let error = relative_error(&logits(name, &with_weights(Some(WeightType::F32))), &wanted);
        assert!(error <= TOLERANCE, "{name}: off by {error:e}");
        for (weights, tolerance) in [(WeightType::Int8, TOLERANCE_BITS), (WeightType::Int4, 0.5)] {
            let error = relative_error(&logits(name, &with_weights(Some(weights))), &wanted);
            assert!(error <= tolerance, "{name} in {}: off by {error:e}", weights.name());
        }
    }
}

/// The reference evaluation, which goes through no pass, says the same.
#[test]
fn models_are_right_as_imported() {
    for name in models() {
        let [ids, wanted] = reference(&name);
        let graph = source::graph_for(&file(&name), &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        let found = graph.eval(&[ids]).unwrap_or_else(|e| panic!("{name}: {e}"));
        let error = relative_error(&found[0], &wanted);
        let tolerance = if PACKED.contains(&&*name) {
            TOLERANCE_BITS
        } else {
            TOLERANCE_BF16
        };
        assert!(error <= tolerance, "{name}: off by {error:e}");
    }
}

/// Steps behind each other give what all tokens at once do.
#[test]
fn steps_are_the_whole() {
    // A length decides which factors this one has for its frequencies.
    for name in models().into_iter().filter(|n| n != "phi3_long") {
        let [ids, wanted] = reference(&name);
        let model = Model::load(file(&name), &Options::default(), 1).unwrap_or_else(|e| panic!("{name}: {e}"));
        let row = &ids.to_i64s()[..ids.shape()[1]];
        let mut cache = model.sequence().expect("there is memory");
        let mut found = vec![];
        for part in [&row[..5], &row[5..6], &row[6..]] {
            let y = model
                .step(&mut cache, 0, part, part.len())
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            found.extend_from_slice(y.as_slice::<f32>().expect("f32"));
        }
        let first = &wanted.to_f32s()[..found.len()];
        let [found, first] = [&found, first].map(|x| Tensor::from_f32(&[x.len()], x));
        let error = relative_error(&found, &first);
        assert!(error <= tolerance(&name), "{name}: off by {error:e}");
    }
}

/// Bytes of a format and what they are.
fn blocks(format: BlockFormat, which: &str) -> [Tensor; 2] {
    let all = npy::read_npz(&home().join("blocks.npz")).unwrap_or_else(|e| panic!("{e}"));
    ["bytes", "values"].map(|what| {
        let name = format!("{}.{which}.{what}", format.name());
        all.iter().find(|(n, _)| *n == name).expect("it is there").1.clone()
    })
}

/// An operator of one operand, on the interpreter and as machine code.
fn both(operator: &str, format: BlockFormat, bytes: &Tensor) -> [Vec<Tensor>; 2] {
    let mut graph = Graph::new("g");
    let x = graph.input("x", Type::fixed(DType::U8, bytes.shape()));
    let mut b = GraphBuilder {
        graph: &mut graph,
        origin: "blocks".into(),
    };
    let op = Op::new(operator, &[Attr::word(format.name())]).expect("an operator");
    for (i, y) in b.add(op, &[x]).expect("it fits").into_iter().enumerate() {
        graph.outputs.push((format!("y{i}"), y));
    }
    let interpreted = graph
        .eval(std::slice::from_ref(bytes))
        .unwrap_or_else(|e| panic!("{e}"));
    let session = compile(&graph, &Options::default())
        .and_then(|c| c.session())
        .unwrap_or_else(|e| panic!("{e}"));
    let inputs = [("x".to_owned(), bytes.clone())].into();
    let ran = run(&session, &inputs).unwrap_or_else(|e| panic!("{e}"));
    [interpreted, ran.into_iter().map(|(_, t)| t).collect()]
}

#[test]
fn blocks_are_decoded_bit_for_bit() {
    for format in BlockFormat::ALL {
        for which in ["own", "any"] {
            let [bytes, values] = blocks(format, which);
            for found in both("decode_blocks", format, &bytes) {
                assert_eq!(found[0].to_f32s(), values.to_f32s(), "{} {which}", format.name());
            }
        }
    }
}

/// What blocks become is exact for `q4_0` and `q8_0`. The others lose what the operator says, 0.02 % where scale and minimum are rounded to f16 and
/// 0.5 % where elements are rounded again to 255 steps of the largest, of weights that are drawn from a normal distribution; of any bytes a little more.
#[test]
fn blocks_are_unpacked_as_exactly_as_it_is_said() {
    for format in BlockFormat::ALL {
        for which in ["own", "any"] {
            let [bytes, values] = blocks(format, which);
            let [interpreted, ran] = both("unpack_blocks", format, &bytes);
            // A rounding of the last bit more or less moves an integer by one at most.
            for (a, b) in interpreted.iter().zip(&ran) {
                let far = a.to_f64s().iter().zip(b.to_f64s()).filter(|(a, b)| *a != b).count();
                assert!(
                    far * 1000 <= a.to_f64s().len(),
                    "{} {which}: {far} differ",
                    format.name()
                );
            }
            let four = format.unpacked_bits() == 4;
            let integers = interpreted[0].to_f64s().into_iter().zip(ran[0].to_f64s());
            for (a, b) in integers.filter(|_| !four) {
                assert!((a - b).abs() <= 1.0, "{} {which}: {a} and {b}", format.name());
            }
            let numbers = |t: Option<&Tensor>| t.map(Tensor::to_f32s);
            let (scales, least) = (ran[1].to_f32s(), numbers(ran.get(2)));
            let size = ran[0].shape()[2];
            let found = ran[0]
                .bytes()
                .chunks(size)
                .enumerate()
                .flat_map(|(i, q)| restore_block(q, scales[i], least.as_ref().map_or(0.0, |l| l[i]), four));
            let (mut lost, mut all) = (0f64, 0f64);
            for (x, y) in found.zip(values.to_f32s()) {
                lost += f64::from(x - y).powi(2);
                all += f64::from(y).powi(2);
            }
            let error = (lost / all).sqrt();
            let most = match format {
                BlockFormat::Q4_0 | BlockFormat::Q8_0 => 0.0,
                BlockFormat::Q4_1 | BlockFormat::Q4K => 4e-4,
                _ => 7e-3,
            };
            println!("{} {which}: {error:e}", format.name());
            assert!(error <= most, "{} {which}: {error:e}", format.name());
        }
    }
}

/// Texts become the tokens that they are with the tokenizer that a file was made of, and those the same text.
#[test]
fn tokenizers_are_those_that_files_were_made_of() {
    let text = std::fs::read_to_string(home().join("tokenizers.json")).expect("it is there");
    let all: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let all = all.as_object().expect("tokenizers by name");
    assert_eq!(all.len(), 8);
    let mut wrong = vec![];
    for (name, cases) in all {
        let files = Files::of_folder(&file(&format!("tokenizer-{name}"))).unwrap_or_else(|e| panic!("{e}"));
        let t = Tokenizer::of(&files, 1 << 20).unwrap_or_else(|e| panic!("{e}"));
        for case in cases.as_array().expect("cases") {
            let text = case[0].as_str().expect("a text");
            let wanted: Vec<i64> = case[1]
                .as_array()
                .expect("tokens")
                .iter()
                .filter_map(|x| x.as_i64())
                .collect();
            let found = t.encode(text, true).unwrap_or_else(|e| panic!("{e}"));
            if found != wanted {
                wrong.push(format!("{name}: {text:?} is {found:?}, expected {wanted:?}"));
            }
            let back = t.decode(&wanted).unwrap_or_else(|e| panic!("{e}"));
            if back != case[2].as_str().expect("a text") {
                wrong.push(format!("{name}: {wanted:?} is {back:?}, expected {}", case[2]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Phi-3's control tokens take the spaces behind them, as its own tokenizer says and no key of a file does.
#[test]
fn control_tokens_of_phi_take_spaces() {
    let tokens = |name: &str| {
        let files = Files::of_folder(&file(name)).unwrap_or_else(|e| panic!("{e}"));
        let t = Tokenizer::of(&files, 64).unwrap_or_else(|e| panic!("{e}"));
        t.encode("</s>  </s>", true).unwrap_or_else(|e| panic!("{e}"))
    };
    assert_eq!(tokens("phi3"), [1, 2, 2]);
    assert_eq!(tokens("llama"), [1, 2, 0, 2]);
}
