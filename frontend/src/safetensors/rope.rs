//! Rotary position embeddings: the frequencies that a configuration describes, and the cosines and sines of positions.
//!
//! Read are the fields `rope_theta`, `rope_scaling` and `partial_rotary_factor` that folders of transformers 4 have, and `rope_parameters` of
//! version 5, which may say it for each type of layer. Sources: Su et al., "RoFormer", arXiv 2104.09864; Peng et al., "YaRN", arXiv
//! 2309.00071; Ding et al., "LongRoPE", arXiv 2402.13753; Meta, Llama 3.1; transformers, `modeling_rope_utils`.

use super::config::Config;
use super::error::Fail;
use super::net::{Net, One};
use brolga_ir::{Build, DType, Dim, Tensor, Value};

/// What a family says beside the configuration.
pub struct Defaults<'a> {
    /// The base where none is given.
    pub theta: f64,
    /// The size of a head.
    pub head: usize,
    /// The type of layers whose parameters these are, where there are several.
    pub layer_type: Option<&'a str>,
    /// The context that the model is for, which scalings compare lengths with.
    pub context: Option<usize>,
}

/// Rotary embeddings of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    frequencies: Frequencies,
    /// A factor of cosines and sines.
    scale: f64,
    /// Whether pairs are neighbours, or half of what is turned apart.
    pub interleaved: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Frequencies {
    Fixed(Vec<f64>),
    /// The second beyond a number of positions.
    Switched {
        short: Vec<f64>,
        long: Vec<f64>,
        beyond: usize,
    },
    /// Divided by `r^(2 i / (dim - 2))` with `r = factor · length / context - (factor - 1)`, beyond the context.
    Dynamic {
        base: Vec<f64>,
        factor: f64,
        context: usize,
    },
}

/// `theta^(-2 i / dim)`.
fn powers(theta: f64, dim: usize) -> Vec<f64> {
    (0..dim / 2).map(|i| theta.powf(-2.0 * i as f64 / dim as f64)).collect()
}

impl Rope {
    /// Embeddings of a base alone.
    pub fn plain(theta: f64, dim: usize) -> Rope {
        Rope {
            frequencies: Frequencies::Fixed(powers(theta, dim)),
            scale: 1.0,
            interleaved: false,
        }
    }

    /// What a configuration says.
    ///
    /// # Errors
    /// When a field is missing or wrong, or the kind of scaling is not known.
    pub fn of(config: &Config, d: &Defaults<'_>) -> Result<Rope, Fail> {
        let theta = config.opt_float("rope_theta")?;
        let partial = config.opt_float("partial_rotary_factor")?;
        let context = match d.context {
            Some(n) => Some(n),
            None => config.opt_size("max_position_embeddings")?,
        };
        // Only scalings ask for it.
        config.without_effect(&["original_max_position_embeddings"]);
        let mut section = match config.section("rope_parameters")? {
            Some(s) => Some(s),
            None => config.section("rope_scaling")?,
        };
        if let (Some(s), Some(layer_type)) = (&section, d.layer_type)
            && let Some(inner) = s.section(layer_type)?
        {
            section = Some(inner);
        }
        let Some(s) = section else {
            let theta = theta.unwrap_or(d.theta);
            return Ok(Rope::plain(theta, turned(d.head, partial)));
        };
        let own = (s.opt_float("rope_theta")?, s.opt_float("partial_rotary_factor")?);
        let theta = own.0.or(theta).unwrap_or(d.theta);
        let dim = turned(d.head, own.1.or(partial));
        let old = s.word("type", "default")?;
        let kind = s.word("rope_type", old)?;
        let context = || context.ok_or_else(|| config.wrong("max_position_embeddings", "is missing"));
        let original = || match config.opt_size("original_max_position_embeddings")? {
            Some(n) => Ok(n),
            None => match s.opt_size("original_max_position_embeddings")? {
                Some(n) => Ok(n),
                None => context(),
            },
        };
        let factor = || match s.opt_float("factor")? {
            Some(x) if x > 0.0 => Ok(x),
            Some(x) => Err(s.wrong("factor", format_args!("{x}, expected a number above 0"))),
            None => Ok(context()? as f64 / original()? as f64),
        };
        s.without_effect(&["factor", "original_max_position_embeddings", "finetuned"]);
        let base = powers(theta, dim);
        let mut scale = 1.0;
        let frequencies = match kind {
            "default" => Frequencies::Fixed(base),
            "linear" => {
                let factor = factor()?;
                Frequencies::Fixed(base.iter().map(|f| f / factor).collect())
            }
            "dynamic" => Frequencies::Dynamic {
                base,
                factor: factor()?,
                context: context()?,
            },
            "llama3" => Frequencies::Fixed(llama3(&s, &base, factor()?, original()?)?),
            "longrope" | "su" | "yarn" if s.has("long_factor") => {
                let list = |field: &str| -> Result<Vec<f64>, Fail> {
                    let list = s.floats(field)?.ok_or_else(|| s.wrong(field, "is missing"))?;
                    match list.len() == base.len() && list.iter().all(|f| *f > 0.0) {
                        true => Ok(base.iter().zip(&list).map(|(b, f)| b / f).collect()),
                        false => Err(s.wrong(
                            field,
                            format_args!("{} numbers, expected {} above 0", list.len(), base.len()),
                        )),
                    }
                };
                let (factor, original) = (factor()?, original()?);
                let default = match factor <= 1.0 {
                    true => 1.0,
                    false => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
                };
                scale = s.float("attention_factor", default)?;
                match (list("short_factor")?, list("long_factor")?) {
                    (short, long) if short == long => Frequencies::Fixed(short),
                    (short, long) => Frequencies::Switched {
                        short,
                        long,
                        beyond: original,
                    },
                }
            }
            "yarn" => {
                let (list, factor) = yarn(&s, &base, theta, factor()?, original()?)?;
                scale = factor;
                Frequencies::Fixed(list)
            }
            other => {
                let known = "default, linear, dynamic, yarn, longrope or llama3";
                return Err(s.wrong(
                    "rope_type",
                    format_args!("`{other}` is not supported, expected {known}"),
                ));
            }
        };
        s.finish()?;
        Ok(Rope {
            frequencies,
            scale,
            interleaved: false,
        })
    }

    /// The same with neighbours as pairs.
    pub fn interleaved(self) -> Rope {
        Rope {
            interleaved: true,
            ..self
        }
    }

    /// Cosines and sines `[batch, positions, 1, pairs]` of integer positions `[batch, positions]`. `length` is the number of positions of a
    /// sequence so far, f32 that broadcast to `[batch, 1, 1, 1]`; it is asked for where frequencies depend on it.
    ///
    /// # Errors
    /// Never for such operands.
    pub fn angles(
        &self,
        net: &mut Net,
        positions: Value,
        length: &dyn Fn(&mut Net) -> One,
    ) -> Result<[Value; 2], Fail> {
        let constant = |net: &mut Net, list: &[f64]| {
            let list: Vec<f32> = list.iter().map(|&x| x as f32).collect();
            let v = net.graph.dense(Tensor::from_f32(&[1, 1, 1, list.len()], &list));
            One::Ok(v)
        };
        let frequencies = match &self.frequencies {
            Frequencies::Fixed(list) => constant(net, list)?,
            Frequencies::Switched { short, long, beyond } => {
                let length = length(net)?;
                let far = net.map_num("sub", length, *beyond as f64)?;
                let zero = net.splat(DType::F32, &net.shape(far), 0.0)?;
                let far = net.map("greater", &[far, zero])?;
                let (short, long) = (constant(net, short)?, constant(net, long)?);
                let mut shape = net.shape(far);
                shape[3] = net.shape(short)[3].clone();
                let far = net.spread(far, &shape)?;
                net.map("where", &[far, long, short])?
            }
            Frequencies::Dynamic { base, factor, context } => {
                let length = length(net)?;
                let length = net.map_num("max", length, *context as f64)?;
                let wide = net.map_num("mul", length, factor / *context as f64)?;
                let ratio = net.map_num("sub", wide, factor - 1.0)?;
                let log = net.map("log", &[ratio])?;
                let dim = 2.0 * base.len() as f64;
                let exponents: Vec<f64> = (0..base.len()).map(|i| -2.0 * i as f64 / (dim - 2.0)).collect();
                let (exponents, base) = (constant(net, &exponents)?, constant(net, base)?);
                let mut shape = net.shape(log);
                shape[3] = net.shape(base)[3].clone();
                let log = net.spread(log, &shape)?;
                let shrunk = net.map("mul", &[log, exponents])?;
                let shrunk = net.map("exp", &[shrunk])?;
                net.map("mul", &[shrunk, base])?
            }
        };
        let s = net.shape(positions);
        let p = net.cast(positions, DType::F32)?;
        let p = net.reshaped(p, &[s[0].clone(), s[1].clone(), Dim::ONE, Dim::ONE])?;
        let f = net.shape(frequencies);
        let batch = if f[0].is(1) { &s[0] } else { &f[0] };
        let shape = [batch.clone(), s[1].clone(), Dim::ONE, f[3].clone()];
        let (p, f) = (net.spread(p, &shape)?, net.spread(frequencies, &shape)?);
        let angles = net.map("mul", &[p, f])?;
        let mut sides = [net.map("cos", &[angles])?, net.map("sin", &[angles])?];
        if self.scale != 1.0 {
            for side in &mut sides {
                *side = net.map_num("mul", *side, self.scale)?;
            }
        }
        Ok(sides)
    }
}

/// Elements of a head that are turned.
fn turned(head: usize, partial: Option<f64>) -> usize {
    (head as f64 * partial.unwrap_or(1.0)) as usize
}

/// Long waves by the factor, short ones as they are, and a ramp between.
fn llama3(s: &Config, base: &[f64], factor: f64, original: usize) -> Result<Vec<f64>, Fail> {
    let needed = |field: &str| s.opt_float(field)?.ok_or_else(|| s.wrong(field, "is missing"));
    let (low, high) = (needed("low_freq_factor")?, needed("high_freq_factor")?);
    let original = original as f64;
    let scaled = |&f: &f64| {
        let wave = 2.0 * std::f64::consts::PI / f;
        if wave > original / low {
            f / factor
        } else if wave < original / high {
            f
        } else {
            let smooth = (original / wave - low) / (high - low);
            (1.0 - smooth) * f / factor + smooth * f
        }
    };
    Ok(base.iter().map(scaled).collect())
}

/// Frequencies, and the factor of cosines and sines.
fn yarn(s: &Config, base: &[f64], theta: f64, factor: f64, original: usize) -> Result<(Vec<f64>, f64), Fail> {
    let dim = 2.0 * base.len() as f64;
    let magnitude = |m: f64| {
        if factor <= 1.0 {
            1.0
        } else {
            0.1 * m * factor.ln() + 1.0
        }
    };
    // A number that is there, and not 0.
    let given = |field: &str| Ok::<_, Fail>(s.opt_float(field)?.filter(|x| *x != 0.0));
    let scale = match (given("mscale")?, given("mscale_all_dim")?) {
        (Some(m), Some(all)) => magnitude(m) / magnitude(all),
        _ => magnitude(1.0),
    };
    let scale = s.float("attention_factor", scale)?;
    let turns = |n: f64| dim * (original as f64 / (n * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln());
    let mut low = turns(given("beta_fast")?.unwrap_or(32.0));
    let mut high = turns(given("beta_slow")?.unwrap_or(1.0));
    if s.flag("truncate", true)? {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    let blended = |(i, f): (usize, &f64)| {
        let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        f / factor * ramp + f * (1.0 - ramp)
    };
    Ok((base.iter().enumerate().map(blended).collect(), scale))
}
