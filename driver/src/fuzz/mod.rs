//! Findings of random models: a level, or machine code, that gives something else than the interpreter of the graph.
//!
//! A model is made ([`generate`]), run on every level, and where one differs or fails cut down to what shows it ([`crate::bisect`]). What is left
//! has a **signature**: where it went wrong, in which way, and by which operators. Findings of one signature are one finding.

pub mod generate;

use crate::bisect::{Against, Apart, Bisect, Found, Machine};
use crate::options::Options;
use crate::random::Random;
use crate::reduce::Case;
use crate::{Error, Result};
use brolga_ir::{DType, Dim, Graph, Number, Tensor};
use generate::{FLOATS, INTEGERS, LAYERS, Words, random_graph_of};
use std::collections::BTreeSet;

/// The largest error of operators that round, over the largest magnitude of all values: of what is wrong it is far larger.
const TOLERANCE: f64 = 1e-3;

/// Bytes that decide a model.
const BYTES: usize = 96;

/// What looks at models.
pub struct Fuzz<'a> {
    /// How they are compiled.
    pub options: &'a Options,
    /// What runs machine code.
    pub machine: Machine<'a>,
    /// What decides them.
    pub seed: u64,
}

/// A model on which something is wrong.
#[derive(Clone)]
pub struct Finding {
    /// The number of the model among those of the seed.
    pub number: u64,
    /// Where, in which way and by which operators.
    pub signature: String,
    /// What was found on the model as it was made.
    pub found: Found,
    /// The smallest model that shows it.
    pub case: Case,
    /// What `brolga bisect` has to be given to see it: an error, over the largest magnitude of all values.
    pub tolerance: f64,
}

impl Finding {
    /// A short name for the signature, as of a file.
    pub fn name(&self) -> String {
        let hash = self.signature.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
        });
        format!("finding-{hash:016x}")
    }
}

impl Fuzz<'_> {
    /// The model of a number, and the error that its results may have.
    ///
    /// # Errors
    /// Never: what is made is valid.
    pub fn model(&self, number: u64) -> Result<(Case, f64)> {
        let mut r = Random::new(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number));
        let bytes: Vec<u8> = (0..BYTES).map(|_| (r.bits() >> 32) as u8).collect();
        let (words, tolerance): (&Words, f64) = match number % 4 {
            0 => (&INTEGERS, 0.0),
            1 => (&FLOATS, 0.0),
            _ => (&LAYERS, TOLERANCE),
        };
        let text = random_graph_of(&bytes, words);
        let made = |message: String| Error::Option(format!("model {number}: {message}\n{text}"));
        let graph = Graph::parse(&text, &|_| None).map_err(|e| made(e.to_string()))?;
        let inputs = graph.inputs.iter().enumerate().map(|(k, i)| {
            let ty = graph.ty(i.value);
            let shape: Vec<usize> = ty.shape.iter().filter_map(Dim::as_const).map(|n| n as usize).collect();
            let value = |i: usize| ((i * 7 + k * 3) % 23) as i128 - 11;
            Tensor::from_fn(ty.dtype, &shape, |i| match ty.dtype {
                DType::I32 => Number::Int(value(i)),
                _ => Number::Float(value(i) as f64 / 4.0),
            })
        });
        let inputs = Some(inputs.collect());
        Ok((Case { graph, inputs }, tolerance))
    }

    /// What is wrong on the model of a number, where anything is.
    ///
    /// # Errors
    /// When its interpreter refuses it.
    pub fn look(&self, number: u64) -> Result<Option<Finding>> {
        let (case, tolerance) = self.model(number)?;
        let search = Bisect {
            options: self.options,
            tolerance,
            against: Against::Values,
            machine: self.machine,
        };
        let Some(found) = search.check(&case)? else {
            return Ok(None);
        };
        let (case, _) = search.smallest(case, &found, &mut |_, _| Ok(()))?;
        Ok(Some(Finding {
            number,
            signature: signature(&found, &case.graph),
            found,
            case,
            tolerance,
        }))
    }
}

/// Where it went wrong, in which way, and by which operators. Numbers of a message are none of it: they are the model's.
fn signature(found: &Found, g: &Graph) -> String {
    let way = match &found.apart {
        Apart::By(_) => "other numbers".to_owned(),
        Apart::Unlike(why) => {
            let words = why
                .split_whitespace()
                .filter(|w| !w.contains(|c: char| c.is_ascii_digit()));
            words.collect::<Vec<_>>().join(" ")
        }
    };
    let operators: BTreeSet<&str> = g.nodes.iter().map(|n| n.op.name()).collect();
    let operators: Vec<&str> = operators.into_iter().collect();
    format!("{}: {way}: {}", found.place, operators.join(" "))
}
