//! Folders of safetensors: small random models of each family against what transformers computes, all tokens at once and in steps.

use brolga::generate::Model;
use brolga::ir::{ConstData, DType, Number, Target, Tensor};
use brolga::{Options, compile, npy, source};
use brolga_frontend::safetensors::{Form, OPTIONAL, WeightType};
use brolga_tests::{data, relative_error, run, targets};
use std::path::{Path, PathBuf};

/// The largest error, over the largest magnitude of the reference, of weights in f32: both sides sum in f32, in other orders.
const TOLERANCE: f64 = 1e-5;

/// The same of weights in bf16, with which products round their other operand to 8 bits.
const TOLERANCE_BF16: f64 = 1e-2;

fn folders() -> Vec<PathBuf> {
    let home = data("families").join("families");
    let entries = std::fs::read_dir(home).expect("it was unpacked").flatten();
    let mut all: Vec<PathBuf> = entries
        .map(|e| e.path())
        .filter(|p| p.join("outputs.npz").exists())
        .collect();
    all.sort();
    all
}

fn tolerance(folder: &Path) -> f64 {
    match folder.to_string_lossy().ends_with("_bf16") {
        true => TOLERANCE_BF16,
        false => TOLERANCE,
    }
}

fn arrays(folder: &Path, file: &str) -> Vec<(String, Tensor)> {
    npy::read_npz(&folder.join(file)).unwrap_or_else(|e| panic!("{e}"))
}

/// A result without what it says of tokens that are padding: references are 0 there.
fn unmasked(found: &Tensor, inputs: &[(String, Tensor)]) -> Tensor {
    let mask = inputs.iter().find(|(name, _)| name == "attention_mask");
    let Some((_, mask)) = mask.filter(|_| found.shape().len() == 3) else {
        return found.clone();
    };
    let size = found.shape()[2];
    Tensor::from_fn(found.dtype(), found.shape(), |p| match mask.get(p / size).truth() {
        true => found.get(p),
        false => Number::Float(0.0),
    })
}

/// The options that read a folder for these inputs.
fn options(inputs: &[(String, Tensor)]) -> Options {
    let mut options = Options::default();
    let given = inputs.iter().map(|(name, _)| name.clone());
    options.folder.with = given.filter(|n| OPTIONAL.contains(&n.as_str())).collect();
    options
}

#[test]
fn every_family_computes_what_transformers_does() {
    let all = folders();
    assert!(all.len() >= 50, "{} folders", all.len());
    let mut wrong = vec![];
    for folder in &all {
        let (inputs, wanted) = (arrays(folder, "inputs.npz"), arrays(folder, "outputs.npz"));
        let options = options(&inputs);
        let outputs = source::graph_for(folder, &options)
            .and_then(|g| compile(&g, &options))
            .and_then(|c| c.session())
            .map_err(|e| e.to_string())
            .and_then(|s| run(&s, &inputs.iter().cloned().collect()).map_err(|e| e.to_string()));
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(e) => {
                wrong.push(format!("{}: {e}", folder.display()));
                continue;
            }
        };
        for (name, reference) in &wanted {
            let found = outputs.iter().find(|(n, _)| n == name);
            let error = found.map_or(f64::INFINITY, |(_, t)| relative_error(&unmasked(t, &inputs), reference));
            if error.is_nan() || error > tolerance(folder) {
                wrong.push(format!("{}: `{name}` is off by {error:e}", folder.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Weights in f16 are what modelling code in f32 has of the rounded numbers, on every kind of tiles; and their packed matrices, tables that are
/// looked up in among them, take half of what they take in f32.
#[test]
fn weights_in_f16_are_the_same_numbers() {
    for family in ["llama", "llama_gqa_tied", "gpt2"] {
        let folder = data("families").join("families").join(family);
        let inputs = arrays(&folder, "inputs.npz");
        let graph = |weights: WeightType, target: &Target| {
            let mut options = options(&inputs);
            options.target = target.clone();
            options.folder.weights = Some(weights);
            let g = source::graph_for(&folder, &options).unwrap_or_else(|e| panic!("{family}: {e}"));
            (g, options)
        };
        let (mut rounded, _) = graph(WeightType::F32, &Target::baseline());
        let mut vectors = 0;
        for c in &mut rounded.constants {
            let t = c.to_tensor();
            match t.shape().len() {
                2 => c.data = ConstData::Dense(t.cast(DType::F16).cast(t.dtype())),
                _ => vectors += (4 * t.len()).next_multiple_of(64),
            }
        }
        let args: Vec<Tensor> = inputs.iter().map(|(_, t)| t.clone()).collect();
        let wanted = rounded.eval(&args).unwrap_or_else(|e| panic!("{family}: {e}"));
        for target in targets() {
            let [whole, half] = [WeightType::F32, WeightType::F16].map(|weights| {
                let (g, options) = graph(weights, &target);
                compile(&g, &options).unwrap_or_else(|e| panic!("{family}: {e}"))
            });
            let [more, less] = [&whole, &half].map(|c| c.packed.bytes().len());
            assert!(
                2 * less <= more + vectors,
                "{family} for {}: {less} of {more} bytes, of which vectors are {vectors}",
                target.name
            );
            let session = half.session().unwrap_or_else(|e| panic!("{family}: {e}"));
            let found = run(&session, &inputs.iter().cloned().collect()).unwrap_or_else(|e| panic!("{family}: {e}"));
            let error = relative_error(&found[0].1, &wanted[0]);
            assert!(error <= TOLERANCE, "{family} for {}: off by {error:e}", target.name);
        }
    }
}

/// Adapters that are merged give what peft gives: of other ranks and factors for some modules, of embeddings, with a module in place of the
/// model's, and of matrices that are stored the other way round.
#[test]
fn adapters_are_merged_as_peft_does() {
    let home = data("families").join("families");
    for (name, base) in [
        ("lora", "llama"),
        ("lora_stabilised", "llama"),
        ("lora_transposed", "gpt2"),
    ] {
        let (folder, adapter) = (home.join(base), home.join(name));
        let mut options = Options::default();
        options.folder.lora = vec![(adapter.clone(), 1.0)];
        let logits = |options: &Options| {
            let g = source::graph_for(&folder, options).unwrap_or_else(|e| panic!("{e}"));
            let session = compile(&g, options)
                .and_then(|c| c.session())
                .unwrap_or_else(|e| panic!("{e}"));
            let inputs = arrays(&folder, "inputs.npz").into_iter().collect();
            run(&session, &inputs)
                .unwrap_or_else(|e| panic!("{e}"))
                .swap_remove(0)
                .1
        };
        let wanted = &arrays(&adapter, "adapted.npz")[0].1;
        let error = relative_error(&logits(&options), wanted);
        assert!(error <= TOLERANCE, "{name}: off by {error:e}");
        // Twice with halves is the same, but for what takes a module's place.
        options.folder.lora = vec![(adapter.clone(), 0.25), (adapter, 0.75)];
        let error = relative_error(&logits(&options), wanted);
        assert!(error <= TOLERANCE, "{name} in two parts: off by {error:e}");
    }
}

/// The reference evaluation, which goes through no pass, says the same.
#[test]
fn families_are_right_as_imported() {
    for folder in &folders() {
        let (inputs, wanted) = (arrays(folder, "inputs.npz"), arrays(folder, "outputs.npz"));
        let graph = source::graph_for(folder, &options(&inputs)).unwrap_or_else(|e| panic!("{e}"));
        let of = |name: &str| inputs.iter().find(|(n, _)| n == name).expect("it is given").1.clone();
        let args: Vec<Tensor> = graph.inputs.iter().map(|i| of(&i.name)).collect();
        let found = graph
            .eval(&args)
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for ((name, _), found) in graph.outputs.iter().zip(&found) {
            let Some((_, reference)) = wanted.iter().find(|(n, _)| n == name) else {
                continue;
            };
            let error = relative_error(&unmasked(found, &inputs), reference);
            assert!(
                error <= tolerance(folder),
                "{}: `{name}` is off by {error:e}",
                folder.display()
            );
        }
    }
}

/// A decoder's folder, its model, and what it has to compute: rows of tokens, and logits of each token.
struct Decoder {
    folder: PathBuf,
    model: Model,
    rows: Vec<Vec<i64>>,
    logits: Vec<f32>,
    words: usize,
}

impl Decoder {
    /// Those among the folders whose logits do not depend on how long a text becomes, as frequencies of some do.
    fn all() -> Vec<Decoder> {
        let all: Vec<Decoder> = folders().into_iter().filter_map(Decoder::of).collect();
        assert!(all.len() >= 12, "{} families generate", all.len());
        all
    }

    fn of(folder: PathBuf) -> Option<Decoder> {
        let (inputs, wanted) = (arrays(&folder, "inputs.npz"), arrays(&folder, "outputs.npz"));
        let [(name, ids)] = &inputs[..] else { return None };
        let (_, logits) = wanted.iter().find(|(n, t)| n == "logits" && t.shape().len() == 3)?;
        let mut options = Options::default();
        options.folder.form = Form::Steps;
        let text = std::fs::read_to_string(folder.join("config.json")).expect("it is there");
        let fixed = !text.contains("\"dynamic\"") && !text.contains("long_factor");
        if name != "input_ids" || !fixed || source::graph_for(&folder, &options).is_err() {
            return None;
        }
        Some(Decoder {
            model: Model::load(&folder, &Options::default(), 1).unwrap_or_else(|e| panic!("{e}")),
            rows: ids.to_i64s().chunks(ids.shape()[1]).map(<[i64]>::to_vec).collect(),
            words: logits.shape()[2],
            logits: logits.to_f32s(),
            folder,
        })
    }

    /// Compares logits of tokens from `at` on of a row with what they have to be.
    fn check(&self, row: usize, at: usize, found: &[f32]) {
        let start = (row * self.rows[row].len() + at) * self.words;
        let largest = |x: &mut dyn Iterator<Item = f32>| x.fold(0.0, |most: f64, x| most.max(f64::from(x.abs())));
        let wrong = found.iter().zip(&self.logits[start..]).map(|(f, e)| f - e);
        let error = largest(&mut wrong.into_iter()) / largest(&mut self.logits.iter().copied());
        let what = self.folder.display();
        assert!(
            error <= tolerance(&self.folder),
            "{what}: row {row}, token {at}: off by {error:e}"
        );
    }
}

/// Decoders give the same logits for a prompt in parts, the last of them a token each, as for all of it; and again behind a cache that
/// was cut.
#[test]
fn steps_are_the_whole() {
    for d in &Decoder::all() {
        for (r, row) in d.rows.iter().enumerate() {
            let mut cache = d.model.sequence().expect("there is memory");
            for round in 0..2 {
                let kept = cache.tokens(0).len();
                let y = d.model.step(&mut cache, 0, &row[kept..5], 5 - kept).expect("it runs");
                d.check(r, kept, y.as_slice().expect("f32"));
                for at in 5..row.len() {
                    let y = d.model.step(&mut cache, 0, &row[at..=at], 1).expect("it runs");
                    d.check(r, at, y.as_slice().expect("f32"));
                }
                if round == 0 {
                    cache.truncate(0, 2);
                }
            }
        }
    }
}

/// Sequences of other lengths are computed together as each alone; one ends before the other, and one begins with what another has.
#[test]
fn sequences_together_are_each_alone() {
    for d in &Decoder::all() {
        let mut cache = d.model.cache(3).expect("there is memory");
        let lengths = [7, 3];
        for (row, n) in lengths.into_iter().enumerate() {
            let slot = cache.begin();
            let y = d.model.step(&mut cache, slot, &d.rows[row][..n], 1).expect("it runs");
            d.check(row, n - 1, y.as_slice().expect("f32"));
        }
        for i in 0..2 {
            let at = lengths.map(|n| n + i);
            let tokens = [d.rows[0][at[0]], d.rows[1][at[1]]];
            let y = d.model.step_all(&mut cache, &tokens).expect("it runs");
            let y = y.as_slice::<f32>().expect("f32");
            d.check(0, at[0], &y[..d.words]);
            d.check(1, at[1], &y[d.words..]);
        }
        cache.end(0);
        let y = d.model.step_all(&mut cache, &[d.rows[1][5]]).expect("it runs");
        d.check(1, 5, y.as_slice().expect("f32"));
        let mut other = d.model.cache(1).expect("there is memory");
        other.begin_as((&cache, 0), &d.rows[1][..4]).expect("there is memory");
        assert_eq!(other.tokens(0), &d.rows[1][..4]);
        let y = d.model.step(&mut other, 0, &d.rows[1][4..6], 2).expect("it runs");
        d.check(1, 4, y.as_slice().expect("f32"));
    }
}

/// A decoder behind an encoder gives the same logits in steps as in one graph: a prompt in parts and behind a cache that was cut, and several
/// sequences together that share a source.
#[test]
fn steps_behind_an_encoder_are_the_whole() {
    let behind = |f: &PathBuf| {
        arrays(f, "inputs.npz")
            .iter()
            .any(|(name, _)| name == "decoder_input_ids")
    };
    let all: Vec<PathBuf> = folders().into_iter().filter(behind).collect();
    assert!(all.len() >= 3, "{} models have an encoder and a decoder", all.len());
    for folder in all {
        let (inputs, wanted) = (arrays(&folder, "inputs.npz"), arrays(&folder, "outputs.npz"));
        let of = |name: &str| inputs.iter().find(|(n, _)| n == name).map(|(_, t)| t);
        let ids = of("decoder_input_ids").expect("it is given");
        let logits = &wanted.iter().find(|(n, _)| n == "logits").expect("it is given").1;
        let d = Decoder {
            model: Model::load(&folder, &Options::default(), 1).unwrap_or_else(|e| panic!("{e}")),
            rows: ids.to_i64s().chunks(ids.shape()[1]).map(<[i64]>::to_vec).collect(),
            words: logits.shape()[2],
            logits: logits.to_f32s(),
            folder: folder.clone(),
        };
        let encoder = d.model.encoder().expect("it has one");
        for (r, row) in d.rows.iter().enumerate() {
            let encoded = match of("input_ids") {
                Some(text) => encoder.tokens(&text.to_i64s()[r * text.shape()[1]..][..text.shape()[1]]),
                None => {
                    let sound = of("input_features").expect("it is given");
                    let size = sound.shape()[1] * sound.shape()[2];
                    encoder.features(&sound.to_f32s()[r * size..][..size], sound.shape()[1])
                }
            };
            let mut cache = d.model.cache(2).expect("there is memory");
            cache.begin();
            assert!(
                d.model.step(&mut cache, 0, &row[..1], 1).is_err(),
                "there is no source yet"
            );
            cache.attend_to(encoded.unwrap_or_else(|e| panic!("{e}")));
            for round in 0..2 {
                let kept = cache.tokens(0).len();
                let y = d.model.step(&mut cache, 0, &row[kept..3], 3 - kept).expect("it runs");
                d.check(r, kept, y.as_slice().expect("f32"));
                for at in 3..row.len() {
                    let y = d.model.step(&mut cache, 0, &row[at..=at], 1).expect("it runs");
                    d.check(r, at, y.as_slice().expect("f32"));
                }
                if round == 0 {
                    cache.truncate(0, 2);
                }
            }
            cache.truncate(0, 4);
            let slot = cache.begin();
            d.model.step(&mut cache, slot, &row[..2], 1).expect("it runs");
            let y = d.model.step_all(&mut cache, &[row[4], row[2]]).expect("it runs");
            let y = y.as_slice::<f32>().expect("f32");
            d.check(r, 4, &y[..d.words]);
            d.check(r, 2, &y[d.words..]);
        }
    }
}
