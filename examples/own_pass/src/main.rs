//! Compiles a model with a pass of this crate, shows what that did, and compares results and sizes.
//!
//! ```sh
//! cargo run --release
//! ```

pub mod bf16_weights;

use bf16_weights::Bf16Weights;
use brolga::instrument::{Instrument, Ran};
use brolga::passes::pass::Settings;
use brolga::passes::registry::Registry;
use brolga::{Options, Session, View};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Keeps what the pass did: what it counted, and lines of the IR behind it.
#[derive(Default)]
struct Watch(Mutex<String>);

impl Instrument for Watch {
    fn after(&self, ran: &Ran) {
        if ran.pass.name() != Bf16Weights::NAME {
            return;
        }
        let mut text = self.0.lock().expect("nobody panics with it");
        for (what, n) in ran.counts.iter() {
            *text += &format!("{what}: {n}\n");
        }
        for line in ran.module.to_string().lines().filter(|l| l.contains(" = cast{")) {
            *text += &format!("{line}\n");
        }
    }
}

/// A session of a model with a pipeline, the pass of this crate among those that it may name.
fn load(model: &Path, pipeline: &str, watch: Option<Arc<Watch>>) -> Result<Session, brolga::Error> {
    let options = Options {
        registry: Registry::default().with::<Bf16Weights>(),
        pipeline: Some(pipeline.into()),
        instrument: watch.map(|w| w as Arc<dyn Instrument>),
        ..Options::default()
    };
    Session::options().compile(options).load(model)
}

/// What the pass did to a model, and what became of its results and of its size.
///
/// # Errors
/// When the model cannot be compiled or run.
pub fn report(model: &Path, image: &[f32]) -> Result<String, brolga::Error> {
    let watch = Arc::new(Watch::default());
    let before = load(model, "canonicalize,prune,eqsat", None)?;
    let after = load(
        model,
        "canonicalize,bf16-weights{least=512},prune,eqsat",
        Some(watch.clone()),
    )?;
    let run = |session: &Session| -> Result<Vec<f32>, brolga::Error> {
        let outputs = session.run(&[View::of(image, &[1, 1, 8, 8])])?;
        Ok(outputs[0]
            .as_slice::<f32>()
            .expect("the model's output is f32")
            .to_vec())
    };
    let (x, y) = (run(&before)?, run(&after)?);
    let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
    let error = x.iter().zip(&y).fold(0f32, |m, (x, y)| m.max((x - y).abs())) / largest;
    let bytes = |session: &Session| session.executor().program().weights().len();
    let seen = watch.0.lock().expect("nobody panics with it").clone();
    Ok(format!(
        "{seen}weights: {} bytes, {} before\nlargest error: {error:.1e} of the largest score\n",
        bytes(&after),
        bytes(&before)
    ))
}

fn main() -> Result<(), brolga::Error> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../digits/digits.onnx");
    print!("{}", report(&model, &[0.5; 64])?);
    Ok(())
}
