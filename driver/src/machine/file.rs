//! The file of a machine's figures: JSON, in units of a second.
//!
//! ```text
//! {"format": 3, "version": "0.1.0", "machine": {"cpu": …, "cores": 2, "target": …}, "hertz": 2.6e9, "tiles": {"f32": …}, …}
//! ```

use super::Machine;
use brolga_ir::figures::{Cache, Origin, Speeds};
use brolga_ir::{Figures, TileKind};
use serde_json::{Map, Value, json};

/// The file's format; what it holds or means changes with it.
const FORMAT: u64 = 3;

/// Figures as JSON.
pub fn json(machine: &Machine, f: &Figures) -> Value {
    let tiles: Map<String, Value> = TileKind::ALL
        .into_iter()
        .map(|k| (k.name().to_owned(), json!(digits(f.tile(k)))))
        .collect();
    let caches = f
        .caches
        .iter()
        .map(|c| json!({"bytes": c.bytes, "shared": c.shared, "speeds": speeds(&c.speeds)}));
    json!({
        "format": FORMAT,
        "version": env!("CARGO_PKG_VERSION"),
        "machine": {"cpu": machine.cpu, "cores": machine.cores, "target": machine.target},
        "origin": match f.origin { Origin::BuiltIn => "built-in", Origin::Measured => "measured" },
        "hertz": digits(f.hertz),
        "tiles": tiles,
        "vectors": digits(f.vectors),
        "caches": caches.collect::<Vec<_>>(),
        "memory": speeds(&f.memory),
        "call": digits(f.call),
        "fork": speeds(&f.fork),
        "spread": digits(f.spread),
        "noisy": f.noisy(),
    })
}

fn speeds(s: &Speeds) -> Value {
    s.0.iter()
        .map(|(n, x)| json!({"threads": n, "figure": digits(*x)}))
        .collect()
}

/// A figure with as many digits as it deserves: four.
fn digits(x: f64) -> f64 {
    format!("{x:.3e}").parse().unwrap_or(x)
}

/// The figures of a machine from its file.
///
/// # Errors
/// What is wrong with the text, or that it is of another machine or version, with the way out.
pub fn read(text: &str, machine: &Machine) -> Result<Figures, String> {
    const AGAIN: &str = "measure again with `brolga machine`";
    let file: Value = serde_json::from_str(text).map_err(|e| format!("no figures: {e}; {AGAIN}"))?;
    let field = |name: &str| {
        file.get(name)
            .ok_or_else(|| format!("no figures: `{name}` is missing; {AGAIN}"))
    };
    let format = field("format")?;
    if format.as_u64() != Some(FORMAT) {
        return Err(format!("figures in the format {format}, expected {FORMAT}; {AGAIN}"));
    }
    let version = field("version")?.as_str().unwrap_or_default();
    if version != env!("CARGO_PKG_VERSION") {
        let this = env!("CARGO_PKG_VERSION");
        return Err(format!(
            "figures of brolga {version}, whose kernels are not those of {this}; {AGAIN}"
        ));
    }
    let of = field("machine")?;
    let text_of = |name: &str| of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let found = Machine {
        cpu: text_of("cpu"),
        cores: of.get("cores").and_then(Value::as_u64).unwrap_or_default() as usize,
        target: text_of("target"),
    };
    if found != *machine {
        let name = |m: &Machine| format!("{}, {} cores, {}", m.cpu, m.cores, m.target);
        return Err(format!(
            "figures of another machine: {}, but this is {}; {AGAIN}",
            name(&found),
            name(machine)
        ));
    }
    let parse = || -> Option<Figures> {
        let tiles = file.get("tiles")?;
        let mut rates = [0.0; TileKind::ALL.len()];
        for (rate, kind) in rates.iter_mut().zip(TileKind::ALL) {
            *rate = positive(tiles.get(kind.name())?)?;
        }
        let cache = |c: &Value| {
            Some(Cache {
                bytes: positive(c.get("bytes")?)?,
                shared: c.get("shared")?.as_bool()?,
                speeds: parse_speeds(c.get("speeds")?, positive)?,
            })
        };
        Some(Figures {
            origin: match file.get("origin")?.as_str()? {
                "measured" => Origin::Measured,
                _ => return None,
            },
            cores: machine.cores,
            hertz: positive(file.get("hertz")?)?,
            tiles: rates,
            vectors: positive(file.get("vectors")?)?,
            caches: file
                .get("caches")?
                .as_array()?
                .iter()
                .map(cache)
                .collect::<Option<_>>()?,
            memory: parse_speeds(file.get("memory")?, positive)?,
            call: positive(file.get("call")?)?,
            fork: parse_speeds(file.get("fork")?, nonnegative)?,
            spread: nonnegative(file.get("spread")?)?,
        })
    };
    parse().ok_or_else(|| format!("no figures: one is missing, or no positive number; {AGAIN}"))
}

fn nonnegative(v: &Value) -> Option<f64> {
    v.as_f64().filter(|x| x.is_finite() && *x >= 0.0)
}

fn positive(v: &Value) -> Option<f64> {
    nonnegative(v).filter(|x| *x > 0.0)
}

fn parse_speeds(v: &Value, figure: fn(&Value) -> Option<f64>) -> Option<Speeds> {
    let pair = |p: &Value| Some((p.get("threads")?.as_u64()? as usize, figure(p.get("figure")?)?));
    let all: Vec<(usize, f64)> = v.as_array()?.iter().map(pair).collect::<Option<_>>()?;
    let ordered = all.windows(2).all(|w| w[0].0 < w[1].0);
    (ordered && !all.is_empty()).then_some(Speeds(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_ir::Target;

    fn machine() -> Machine {
        Machine {
            cpu: "Some CPU (6-1-2)".into(),
            cores: 4,
            target: "x86-64-v3".into(),
        }
    }

    fn text() -> String {
        let figures = Figures {
            origin: Origin::Measured,
            ..Figures::built_in(&Target::x86_64_v3(), 4)
        };
        json(&machine(), &figures).to_string()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let figures = read(&text(), &machine()).expect("what was written");
        assert_eq!(json(&machine(), &figures).to_string(), text());
        assert_eq!(figures.origin, Origin::Measured);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_word() {
        let refused = |text: &str, words: &str| {
            let e = read(text, &machine()).expect_err("it does not fit");
            assert!(e.contains(words) && e.contains("brolga machine"), "{e}");
        };
        let text = text();
        refused("", "no figures: EOF");
        refused("{}", "`format` is missing");
        refused(&text.replace("\"format\":3", "\"format\":2"), "format 2, expected 3");
        let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
        refused(&text.replace(&version, "\"version\":\"0.0.1\""), "of brolga 0.0.1");
        refused(
            &text.replace("Some CPU", "Another"),
            "Another (6-1-2), 4 cores, x86-64-v3",
        );
        refused(&text.replace("\"cores\":4", "\"cores\":8"), "8 cores");
        refused(
            &text.replace("\"origin\":\"measured\"", "\"origin\":\"built-in\""),
            "one is missing",
        );
        let damaged = text.replace("\"hertz\":", "\"hertz\":-");
        refused(&damaged, "no positive number");
        refused(&text[..text.len() / 2], "no figures");
    }
}
